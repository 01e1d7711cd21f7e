"""Strings to token ids, ids to batches of both kinds of model, and generated ids to answers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adept.base.errors import UserError
from adept.data.example import IGNORED, Example

CONTEXTS = ("x", ":", "1")
"""Texts before which another text is tokenised, so that it is not taken for the beginning of a text. A tokenizer joins
letters with letters and signs with signs, so the text's first characters stay apart from one of these.
"""


@dataclass(frozen=True)
class Codec:
    """Strings to ids, ids to batches and ids to answers, for both kinds of model.

    |                | encoder-decoder           | decoder-only                                   |
    | train input    | [prompt][source]          | [prompt][source][target][eos], right padded    |
    | labels         | [target][eos]             | -100 on prompt and source                      |
    | generate input | same as train             | [prompt][source], left padded                  |

    A decoder-only model's row is one text: source, then cue and target as they are tokenised behind what stands before
    them. Special tokens that the tokenizer adds at a text's beginning stay; those at its end are left out there, since
    the text goes on. An answer is read as it stands behind the cue, so a target that is read as an answer is itself.

    Truncation removes source tokens, never prompt, cue or target: the source's end, or without a cue, where the target
    continues the source (code), its beginning. Masks come from lengths, since many models pad with EOS. Nothing of
    this depends on the tokenizer's own settings of truncation, padding and decoding.
    """

    tokenizer: object
    encoder_decoder: bool
    prompt_ids: tuple[int, ...]  # [m] ids >= V
    max_source_len: int
    max_target_len: int
    cue: str | None  # "": none is written, but sources are cut at their end
    cut_references: bool = False  # references pass through the tokenizer and max_target_len too (released code)
    table_rows: tuple[int, int] | None = None  # of the tables that sources and targets address; None: not checked
    clean_up: bool = False  # texts are cleaned up as transformers 4 decodes, and stripped (released code)
    multiple: int = 8  # batch widths are rounded up to this, so that few shapes occur

    @property
    def max_width(self) -> int:
        """Columns of the longest possible row of train_batch."""
        return len(self.prompt_ids) + self.max_source_len + (0 if self.encoder_decoder else self.max_target_len)

    @property
    def padding_side(self) -> str:
        """Where rows of a source_batch are padded: away from the answer."""
        return "right" if self.encoder_decoder else "left"

    # Strings to ids

    def encode(self, examples: Sequence[Example]) -> list[Example]:
        """Examples with their ids filled in. Raises UserError where a source has no room beside the cue."""
        if not examples:  # nothing validates MBPP, and tokenizers take no empty list
            return []
        (first, last), cue = self.special_ids, self.cue_ids
        room = self.max_source_len - len([*first, *cue, *last])
        if room < 1:
            raise UserError(
                f"--max_source_len {self.max_source_len} leaves no room for a source beside the "
                f"{len(cue)} tokens of {self.cue!r} and {len([*first, *last])} special tokens"
            )
        part = slice(-room, None) if self.cue is None else slice(room)
        sources = self.tokenizer([e.source for e in examples], add_special_tokens=False, verbose=False).input_ids
        targets: dict[tuple[str, str], tuple[int, ...]] = {}  # there are few different labels
        encoded = []
        for example, source in zip(examples, sources, strict=True):
            before = example.source if self.cue is None else ""
            if (key := (before, example.target)) not in targets:
                targets[key] = tuple(self.target_ids(example.target, before))
            encoded.append(
                dataclasses.replace(
                    example,
                    source_ids=(*first, *source[part], *cue, *last),
                    target_ids=targets[key],
                    references=self.read_references(example.references),
                )
            )
        for example in encoded:
            self.check_ids(example.source_ids, example.target_ids)
        return encoded

    def check_ids(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Raises UserError for an id beyond its embedding table, whose rows the prompt's ids follow."""
        for ids, rows in zip((source, target), self.table_rows or (), strict=False):
            if ids and (largest := max(ids)) >= rows:
                raise UserError(
                    f"the data holds the token {self.tokenizer.convert_ids_to_tokens(largest)!r}, id {largest:,}, but "
                    f"the model's embedding has only {rows:,} rows: --model needs the tokenizer that it was trained "
                    "with"
                )

    def read_references(self, references: tuple[str, ...]) -> tuple[str, ...]:
        """The references that predictions are compared with."""
        if not self.cut_references:
            return references
        return tuple(self.text(self.target_ids(reference)) for reference in references)

    def ids(self, text: str, *, special: bool) -> list[int]:
        """Ids of a text that stands alone. special: with the special tokens that the tokenizer adds."""
        return self.tokenizer(text, add_special_tokens=special, verbose=False).input_ids

    @functools.cached_property
    def special_ids(self) -> tuple[list[int], list[int]]:
        """The special ids that the tokenizer adds to a source's beginning and to its end.

        A decoder-only model's source has none at its end, because the text goes on there.
        """
        plain, full = (self.ids(CONTEXTS[0], special=special) for special in (False, True))
        start = next((i for i in range(len(full)) if full[i : i + len(plain)] == plain), 0)
        return full[:start], full[start + len(plain) :] if self.encoder_decoder else []

    def ids_after(self, before: str, text: str) -> list[int]:
        """Ids of `text` as it stands behind `before`: what the two texts joined have beyond the ids of `before`.

        Where a token lies across the boundary, `text` is tokenised behind one of CONTEXTS.
        """
        for context in (before, *CONTEXTS):
            start, joined = self.ids(context, special=False), self.ids(context + text, special=False)
            if joined[: len(start)] == start:
                return joined[len(start) :]
        return self.ids(text, special=False)

    @functools.cached_property
    def cue_ids(self) -> list[int]:
        """Ids of a decoder-only model's cue on a line of its own."""
        return [] if self.encoder_decoder or not self.cue else self.ids_after(CONTEXTS[0], f"\n{self.cue}")

    def text_ids(self, text: str, source: str = "") -> list[int]:
        """Ids of a target without EOS. A decoder-only model's target follows its cue after a blank.

        source: what the target continues, where there is no cue.
        """
        if self.encoder_decoder:
            return self.ids(text, special=False)
        if self.cue is None:
            return self.ids_after(source, text)
        return self.ids_after(f"{CONTEXTS[0]}\n{self.cue}", f" {text}")

    def target_ids(self, text: str, source: str = "") -> list[int]:
        """Ids of a target with EOS, cut to max_target_len (EOS stays). source: as for text_ids."""
        return [*self.text_ids(text, source)[: self.max_target_len - 1], self.tokenizer.eos_token_id]

    # Ids to strings

    def source_lengths(self, texts: Sequence[str]) -> dict[str, int]:
        """{source: its tokens with the cue's, were there no limit}."""
        cue = 0 if self.encoder_decoder or self.cue is None else len(self.ids(f"\n{self.cue}", special=False))
        return {text: len(ids) + cue for text, ids in zip(texts, self.tokenize(texts), strict=True)}

    def target_lengths(self, texts: Sequence[str]) -> dict[str, int]:
        """{target: its tokens with EOS, were there no limit}."""
        blank = "" if self.encoder_decoder or self.cue is None else " "
        ids = self.tokenize([f"{blank}{text}" for text in texts], special=False)
        return {text: len(own) + 1 for text, own in zip(texts, ids, strict=True)}

    def tokenize(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """The ids of each text, uncut. Tokenizers take no empty list."""
        return self.tokenizer(list(texts), add_special_tokens=special, verbose=False).input_ids if texts else []

    def text(self, ids: Sequence[int]) -> str:
        """The answer of generated ids, up to EOS: the inverse of target_ids.

        It is what all ids say beyond what stands before it, without the blank that separates it from the cue, or that
        the tokenizer itself puts in front of an encoder-decoder's target.
        """
        ids = list(ids)
        ids = ids[: ids.index(self.tokenizer.eos_token_id)] if self.tokenizer.eos_token_id in ids else ids
        alone = self.ids(CONTEXTS[0], special=False)
        if self.encoder_decoder:
            before, blank = [], " " if self.decode(alone).startswith(" ") else ""
        else:
            before, blank = self.cue_ids or alone, "" if self.cue is None else " "
        text = self.decode([*before, *ids])[len(self.decode(before)) :].removeprefix(blank)
        return clean_up(text) if self.clean_up else text

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    # Ids to batches

    def train_batch(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Arguments of the model whose output's `.loss` is the mean over target tokens.

        {"input_ids", "attention_mask" [B, T]} and "labels" [B, L]; for decoder-only models, "labels" and "shift_labels"
        [B, K] are those of the K positions in "logits_to_keep".
        """
        if self.encoder_decoder:
            batch = self.source_batch(examples)
            batch["labels"] = pad([e.target_ids for e in examples], IGNORED, "right", 1)
            return batch
        rows = [(*self.prompt_ids, *e.source_ids, *e.target_ids) for e in examples]
        silent = [len(self.prompt_ids) + len(e.source_ids) for e in examples]
        labels = pad(
            [(*[IGNORED] * n, *row[n:]) for n, row in zip(silent, rows, strict=True)], IGNORED, "right", self.multiple
        )
        # Position t predicts label t + 1. Logits are wanted where some row has a target, a few of all positions: with a
        # large vocabulary the output head is a fifth of a small model's arithmetic.
        following = torch.cat([labels[:, 1:], labels.new_full((len(rows), 1), IGNORED)], dim=1)
        wanted = (following != IGNORED).any(0).nonzero()[:, 0]  # [K]
        aligned = following[:, wanted]  # [B, K]
        return {**self.masked(rows, "right"), "labels": aligned, "shift_labels": aligned, "logits_to_keep": wanted}

    def source_batch(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """{"input_ids", "attention_mask" [B, T]} for prediction: prompt and source.

        The padding lies on the side away from the answer.
        """
        return self.pad_sources([self.source_row(example) for example in examples])

    def source_row(self, example: Example) -> tuple[int, ...]:
        """Prompt and source of an encoded example."""
        return (*self.prompt_ids, *example.source_ids)

    def pad_sources(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """source_batch() of rows that source_row() made, also of codecs with other prompts."""
        return self.masked(rows, self.padding_side)

    def masked(self, rows: Sequence[Sequence[int]], side: str) -> dict[str, Tensor]:
        # Padding is EOS: many tables hold zeros at the pad token, and a family that normalises what it reads (Gemma 3n)
        # has no finite gradient there.
        return {
            "input_ids": pad(rows, self.tokenizer.eos_token_id, side, self.multiple),
            "attention_mask": pad([[1] * len(row) for row in rows], 0, side, self.multiple),
        }


def pad(rows: Sequence[Sequence[int]], value: int, side: str, multiple: int) -> Tensor:
    """[B, T] with T the longest row rounded up to `multiple`."""
    width = -(-max(map(len, rows)) // multiple) * multiple
    filling = [[value] * (width - len(row)) for row in rows]
    return torch.tensor(
        [[*row, *more] if side == "right" else [*more, *row] for row, more in zip(rows, filling, strict=True)]
    )


def clean_up(text: str) -> str:
    """The text without blanks in front of punctuation and English contractions, and without those around it.

    That is what transformers 4 decodes by default, and what the released code then strips.
    """
    for spaced in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
        text = text.replace(spaced, spaced.strip())
    return text.strip()


def check_labels(codec: Codec, labels: Sequence[str]) -> None:
    """Raises UserError unless every label is itself when its ids are read as an answer, and has ids of its own."""
    remedy = "choose labels that it can tell apart and write, or --targets digits"
    seen: dict[tuple[int, ...], str] = {}
    for label in labels:
        ids = tuple(codec.text_ids(label))
        if len(ids) >= codec.max_target_len:
            raise UserError(
                f"--max_target_len {codec.max_target_len} cuts the label {label!r}, which needs {len(ids) + 1} tokens "
                "with the one that ends it"
            )
        if ids in seen:
            raise UserError(
                f"labels {seen[ids]!r} and {label!r} are the same tokens in this model's tokenizer; {remedy}"
            )
        seen[ids] = label
    for ids, label in seen.items():
        if (text := codec.text(ids)) != label:
            raise UserError(
                f"label {label!r} cannot be predicted: this model's tokenizer makes {text!r} of it; {remedy}"
            )
