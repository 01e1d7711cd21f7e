"""Whether an exported folder, read by transformers or PEFT alone, does what the session does."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adept.base.errors import UserError, first_line
from adept.data.dataset import render_rows
from adept.data.example import Example
from adept.data.sources import find_source, load_rows
from adept.models.generation import answer_ids, generate_ids
from adept.models.likelihood import choice_logits, virtual_prompt_logits
from adept.models.tiny import FIXTURE_FOLDER, fixture_rows
from adept.serving.export.tokenizer import IdLayout
from adept.tasks import TASKS
from adept.training.evaluation import max_new_tokens
from adept.training.session import Session

TEXTS, BATCH = 32, 4
"""Texts whose ids are compared; of these so many give logits and answers."""

TOLERANCE = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 1e-1}
"""The largest difference of logits, as a fraction of the largest logit."""

ODD_TEXTS = ("x", " two  blanks ", "line\nbreak", "Zürich 東京 🙂", "1,234.5% (of it)!", "word " * 2000)
"""What tokenizers treat in ways of their own; the last is longer than any limit."""


def known_texts(session: Session) -> list[str]:
    """The source texts of the task's rows that are at hand without a network, test rows first; else none."""
    texts = []
    for split in reversed(session.task.splits):
        try:
            source = find_source(session.task, split, session.config)
            if source.path is None and session.task.hub is not None:
                return []
            rows, _, where = load_rows(session.task, split, session.config)
            texts += [e.source for piece in render_rows(session.task, split, rows, where) for e in piece]
        except UserError:  # a folder of another machine, a package index that does not answer
            return []
    return texts


def sample_texts(session: Session, known: Sequence[str]) -> list[str]:
    """TEXTS sources: rows of the task, of which `known` are those at hand, then other tasks' rows, then odd ones."""
    texts, count = dict.fromkeys(known), TEXTS - len(ODD_TEXTS)
    names = sorted((path.stem for path in FIXTURE_FOLDER.glob("*.jsonl")), key=lambda name: name != session.task.name)
    for name in names:
        if len(texts) < count:
            task = session.task if name == session.task.name else TASKS[name]
            rendered = render_rows(task, "train", fixture_rows(name), name)
            texts |= dict.fromkeys(example.source for pieces in rendered for example in pieces)
    return [*itertools.islice(texts, count), *ODD_TEXTS]


@dataclass(frozen=True)
class Behaviour:
    """What a session makes of some texts. Ids are the session's, in which the prompt begins at V."""

    texts: list[str]
    ids: list[tuple[int, ...]]
    """Of each text, with the prompt and the cue."""
    choices: Tensor
    """[1, L]: answer tokens whose logits are compared."""
    logits: Tensor
    """[BATCH, L, V]"""
    answers: list[str]
    """What is generated for the first BATCH texts, greedily."""


@torch.no_grad()
def observe(session: Session, texts: Sequence[str], *, cue: bool) -> Behaviour:
    """What the session makes of the texts, with or without the cue between source and answer."""
    codec = dataclasses.replace(session.codec, multiple=1)  # batches as wide as a tokenizer's, so that sums round alike
    codec = codec if cue else dataclasses.replace(codec, cue="")
    examples = codec.encode([Example(str(i), text, "", ()) for i, text in enumerate(texts)])
    choices = torch.tensor([codec.target_ids("yes, or no")], device=session.device)
    logits, answers = [], []
    session.model.eval()
    for batch_examples in batches(session, examples[:BATCH]):
        batch = {name: ids.to(session.device) for name, ids in codec.source_batch(batch_examples).items()}
        with session.autocast():
            cached = session.capabilities.has_key_cache
            logits.append(choice_logits(session.model, batch, choices, with_cache=cached).float().cpu())
            generated = generate_ids(session.model, batch, max_new_tokens(session))
        answers += [codec.decode(until_eos(row, codec.tokenizer.eos_token_id)).strip() for row in generated.tolist()]
    if (hook := session.prompted_embedding) is not None:
        hook.forget()
    ids = [(*codec.prompt_ids, *example.source_ids) for example in examples]
    return Behaviour(list(texts), ids, choices.cpu(), torch.cat(logits), answers)


def batches(session: Session, items: list) -> list[list]:
    """All in one batch, or each alone where padding changes what the model computes."""
    return [items] if session.capabilities.ignores_left_padding else [[item] for item in items]


def until_eos(ids: list[int], eos: int) -> list[int]:
    return ids[: ids.index(eos)] if eos in ids else ids


def check_tokenizer(tokenizer: Any, expected: Behaviour, layout: IdLayout) -> bool:
    """Raises UserError unless a folder's tokenizer gives every text the session's ids.

    Returns whether its chat template does so, too, or there is none.
    """
    wanted = [layout.translate(ids) for ids in expected.ids]
    found = tokenizer(expected.texts, truncation=True).input_ids
    for text, own, ids in zip(expected.texts, wanted, found, strict=True):
        if own != list(ids):
            raise differs(f"its tokenizer gives {text!r:.60} the ids {list(ids)!s:.80}, not {own!s:.80}")
    if not tokenizer.chat_template:
        return True
    chats = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False) for text in expected.texts
    ]
    ids_of_chats = tokenizer(chats, add_special_tokens=False, truncation=False, verbose=False).input_ids
    limit = max(map(len, wanted))
    pairs = [(own, list(ids)) for own, ids in zip(wanted, ids_of_chats, strict=True) if len(ids) < limit]
    return all(own == ids for own, ids in pairs)


@torch.no_grad()
def check_model(
    session: Session, model: nn.Module, tokenizer: Any, expected: Behaviour, *, virtual_prompt: bool = False
) -> float:
    """Raises UserError unless a folder's model has the session's logits and gives its answers.

    model: answers with its own generation_config. virtual_prompt: it adds the prompt itself (PEFT).
    Returns the largest difference of logits, as a fraction of the largest logit.
    """
    texts = expected.texts[: len(expected.logits)]
    alone = virtual_prompt and session.capabilities.continues_source  # PEFT does not support left padding there
    parts = [[text] for text in texts] if alone else batches(session, texts)
    logits, answers, vocabulary = [], [], expected.logits.shape[-1]
    for part in parts:
        encoded = tokenizer(part, padding=True, truncation=True, return_tensors="pt")
        batch = {name: encoded[name].to(model.device) for name in ("input_ids", "attention_mask")}
        choices = expected.choices.to(model.device)
        if virtual_prompt:
            own = virtual_prompt_logits(model, batch, choices.expand(len(part), -1))
        else:
            own = choice_logits(model, batch, choices, with_cache=session.capabilities.has_key_cache)
        logits.append(own[..., :vocabulary].float().cpu())
        generated = answer_ids(model, batch, model.generate(**batch))
        answers += [text.strip() for text in tokenizer.batch_decode(generated, skip_special_tokens=True)]
    found = torch.cat(logits)
    difference = ((found - expected.logits).abs().max() / expected.logits.abs().max()).item()
    if not difference <= TOLERANCE[session.config.precision]:
        raise differs(f"its logits differ by {difference:.1e} of the largest")
    for text, own, answer in zip(texts, expected.answers, answers, strict=True):
        if own != answer:
            raise differs(f"it answers {answer!r:.60} to {text!r:.60}, not {own!r:.60}")
    return difference


def differs(how: str) -> UserError:
    return UserError(
        f"nothing is exported, because the folder would not do what the run does: {how}; "
        "--dtype float32 rounds least, and adept.load() needs no export"
    )


def readable(load: Callable, *arguments, **keywords) -> Any:
    """What load() returns of a folder. Raises UserError where a library cannot read it."""
    try:
        return load(*arguments, **keywords)
    except Exception as error:  # what the libraries raise has no base of its own
        raise differs(f"it cannot be read ({first_line(error)})") from error


def loaded_dtype(session: Session) -> torch.dtype:
    """The type of the weights that a session of this precision computes with."""
    return torch.bfloat16 if session.config.precision == "bf16" else torch.float32


def read_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, as transformers alone reads it."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder)
