"""Tiny random models, one of each name in TINY (adept/models/families.py), made on first use.

The profile "smoke" and the tests run on them in seconds; their answers have no quality. Their tokenizer is trained on
the rows of data/fixtures.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from adept.base.paths import ROOT
from adept.models.bundled import FOLDER, publish
from adept.models.families import TINY, build_random_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

FIXTURE_FOLDER = ROOT / "data" / "fixtures"


def fixture_rows(task: str) -> list[dict]:
    """The rows of data/fixtures/<task>.jsonl."""
    return [json.loads(line) for line in (FIXTURE_FOLDER / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()]


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder data/bundled/<name>-<digest>; make(folder) fills it on first use.

    The digest is of all that decides about the content: the fixtures, this file and the shapes in TINY.
    """
    sources = sorted([*FIXTURE_FOLDER.glob("*.jsonl"), Path(__file__)])
    content = b"".join(path.read_bytes() for path in sources) + json.dumps(TINY).encode()
    target = FOLDER / f"{name}-{hashlib.sha256(content).hexdigest()[:8]}"
    if not target.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
            made = Path(scratch) / name
            made.mkdir()
            make(made)
            publish(made, target)
    return target


def tiny_model_folder(name: str) -> Path:
    """The folder of a tiny random model of that family, with its tokenizer."""

    def make(folder: Path) -> None:
        model = make_model(name.removeprefix("tiny-"))
        model.save_pretrained(folder)
        make_tokenizer(folder, appends_eos=model.config.is_encoder_decoder)

    return made_once(name, make)


LATER_FIXTURES = ("gsm8k",)
"""Fixtures that the tokenizer is not trained on, so that tiny models stay what they were when fixtures are added."""


def make_tokenizer(folder: Path, *, appends_eos: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 320 tokens, trained on the fixtures and saved into `folder`."""
    import tokenizers
    import transformers

    texts = [
        str(value)
        for path in sorted(FIXTURE_FOLDER.glob("*.jsonl"))
        if path.stem not in LATER_FIXTURES
        for row in fixture_rows(path.stem)
        for value in row.values()
    ]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    if appends_eos:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 1)]
        )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_model(family: str) -> PreTrainedModel:
    """A random model of two layers, 32 wide, always the same. family: "t5", "llama" or "codegen".

    The state of torch's generator does not change. Raises KeyError for another family.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_random_model(TINY[f"tiny-{family}"])
