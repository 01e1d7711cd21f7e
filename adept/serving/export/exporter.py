"""Exports a trained run as a folder that transformers or PEFT reads, checked before it is there."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError

from adept.base.console import print_status
from adept.base.errors import UserError, first_line
from adept.serving.export.check import known_texts, observe, sample_texts
from adept.serving.export.peft_folder import check_adapter, hosts, require_adapter, require_unused, write_adapter
from adept.serving.export.plain import check_plain, write_plain
from adept.serving.export.usage import usage
from adept.serving.load import load

Form = Literal["plain", "peft", "prompt_tuning"]

FORMS: dict[str, str] = {
    "plain": "a model folder for AutoModel and AutoTokenizer",
    "peft": "an adapter for PEFT over the unmodified base; a prompt or ADePT as a LoRA on the input embedding",
    "prompt_tuning": "method pt as PEFT's PROMPT_TUNING, which takes no left-padded batches of a decoder-only model",
}

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}
"""--dtype -> the precision of the session that the folder must equal."""


def export(
    name: str,
    folder: str | Path,
    *,
    form: Form = "plain",
    results_dir: str = "results",
    compact: bool = False,
    cue: bool = True,
    dtype: Literal["float32", "bfloat16"] | None = None,
    **overrides,
) -> Path:
    """Writes a trained run as `folder`, and returns its path.

    name: a run id under results_dir or an adapter folder. compact: an encoder-decoder with two tables, for transformers
    5 alone. cue: the tokenizer writes the cue behind the source. dtype: of the weights; None: the run's. overrides: as
    for load(), such as model= and device=.

    The folder is read by transformers or PEFT alone before it gets its name: the ids of 32 texts, the logits and the
    greedy answers of four must be the session's. Raises UserError where they are not, for a run that the form cannot
    hold, and for a folder with something in it.
    """
    target = Path(folder)
    require_empty(target)
    if compact and form != "plain":
        raise UserError("--compact is for --as plain")
    precision = {} if dtype is None else {"precision": PRECISIONS[dtype]}
    session = load(name, results_dir=results_dir, **precision, **overrides)
    if form != "plain":
        require_adapter(session, virtual=form == "prompt_tuning")
    known = known_texts(session)
    expected = observe(session, sample_texts(session, known), cue=cue)
    codec = session.codec if cue else dataclasses.replace(session.codec, cue="")
    with new_folder(target) as made, without_warnings():
        if form == "plain":
            layout = write_plain(session, made, codec, compact=compact)
            difference, chats = check_plain(session, made, expected, layout)
        else:
            virtual = form == "prompt_tuning"
            codec = dataclasses.replace(codec, prompt_ids=()) if virtual else codec
            layout = hosts(session, codec)
            require_unused(layout, codec.tokenizer, [*known, *expected.texts])
            write_adapter(session, made, codec, layout, virtual=virtual)
            difference, chats = check_adapter(session, made, expected, layout, virtual=virtual)
        text = usage(session, target.name, form, layout, expected.texts[:2], compact=compact, cue=cue, chats=chats)
        (made / "README.md").write_text(text, encoding="utf-8")
    print_status(
        f"{target}: the ids of {len(expected.texts)} texts and the answers to {len(expected.answers)} are the run's; "
        f"logits differ by {difference:.0e} of the largest"
    )
    return target


def require_empty(target: Path) -> None:
    """Raises UserError where something is at the path that would be lost."""
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise UserError(f"{target} is there and not empty: nothing is written; name a folder that is not there yet")


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Inside, transformers and PEFT are silent: they warn of untied tables, which README.md explains."""
    import transformers

    level = transformers.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity_error()
        try:
            yield
        finally:
            transformers.logging.set_verbosity(level)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder that becomes `target` when all that is done inside succeeds, and otherwise goes away.

    Raises UserError where the disk refuses.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp") as scratch:
            made = Path(scratch) / "folder"
            made.mkdir()
            yield made
            for path in made.iterdir():
                path.chmod(0o644)  # the libraries make some files private
            os.rename(made, target)  # an empty folder gives way, one with files does not
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"cannot write {target}: {first_line(error)}; name a folder where there is room and permission"
        ) from error
