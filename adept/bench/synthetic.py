"""Replacements of real files: a tokenizer of digits, rows of a profile's lengths, a head with short answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
from torch import nn

from adept.bench.profiles import Profile
from adept.data.example import Example
from adept.training.session import Session


class DigitTokenizer:
    """A tokenizer of label digits. "0" is two tokens, "1" and "2" are one, as in T5's vocabulary.

    Any other character is one token, blanks are none.
    """

    pad_token_id, eos_token_id = 0, 1
    answer_start_id = 2
    """The last id of every causal source. The answer of an encoder-decoder starts at the padding id instead."""
    words: ClassVar = {"0": (3, 632), "1": (209,), "2": (204,), " ": ()}
    texts: ClassVar = {pad_token_id: "", eos_token_id: "", 3: "", 632: "0", 209: "1", 204: "2"}

    def __call__(self, text: str, **_) -> SimpleNamespace:
        return SimpleNamespace(
            input_ids=[i for letter in text for i in self.words.get(letter, (self.answer_start_id,))]
        )

    def decode(self, ids: Sequence[int], **_) -> str:
        return "".join(self.texts.get(i, f" {i}") for i in ids)


def set_short_answer_head(model: nn.Module) -> nn.Module:
    """Gives a random model an output head with which it answers "0" and EOS, in place, and returns the model.

    Generation then takes as few steps as with a trained model.
    """
    table = model.get_input_embeddings().weight  # [V, D]
    head = table * 1e-3
    answer = (*DigitTokenizer.words["0"], DigitTokenizer.eos_token_id)
    # The last hidden state of a random model is nearest to the embedding of its last input token.
    head[answer[0]] = table[DigitTokenizer.pad_token_id] + table[DigitTokenizer.answer_start_id]
    for token, next_token in itertools.pairwise(answer):
        head[next_token] = table[token]
    model.get_output_embeddings().weight = nn.Parameter(head, requires_grad=False)
    return model


def synthetic_examples(profile: Profile, count: int, session: Session, seed: int = 0) -> list[Example]:
    """`count` encoded examples of random ids whose source lengths follow the profile's deciles.

    Targets are the task's labels in turn; free text has targets of 1 to 8 tokens.
    """
    generator = np.random.default_rng(seed)
    labels = session.task.labels
    lengths = np.interp(10 * generator.random(count), range(11), profile.deciles).round().astype(int)
    examples = []
    for i, length in enumerate(lengths):
        ids = generator.integers(1000, 30_000, length)
        source = (*ids[:-1].tolist(), DigitTokenizer.answer_start_id)
        target = labels[i % len(labels)] if labels else ""
        target_ids = (
            session.codec.target_ids(target) if labels else (*ids[: 1 + i % 8].tolist(), DigitTokenizer.eos_token_id)
        )
        examples.append(Example(str(i), "", target, (target,), source_ids=source, target_ids=tuple(target_ids)))
    return examples
