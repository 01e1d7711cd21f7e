"""Strings to token ids, and ids to batches of both kinds of model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adept.base.errors import UserError
from adept.data.example import IGNORED, Example


@dataclass(frozen=True)
class Codec:
    """Strings to ids and ids to batches, for both kinds of model.

    |                | encoder-decoder           | decoder-only                                   |
    | train input    | [prompt][source]          | [prompt][source][target][eos], right padded    |
    | labels         | [target][eos]             | -100 on prompt and source                      |
    | generate input | same as train             | [prompt][source], left padded                  |

    Truncation removes source tokens, never prompt, cue or target. Masks come from lengths, since many models pad with
    EOS. Without a cue the target continues the source (code): nothing stands between them, and truncation takes the
    source's beginning.
    """

    tokenizer: object
    encoder_decoder: bool
    prompt_ids: tuple[int, ...]  # [m] ids >= V
    max_source_len: int
    max_target_len: int
    cue: str | None
    cut_references: bool = False  # references pass through the tokenizer and max_target_len too (released code)
    table_rows: tuple[int, int] | None = None  # of the tables that sources and targets address; None: not checked
    multiple: int = 8  # batch widths are rounded up to this, so that few shapes occur

    @property
    def max_width(self) -> int:
        """Columns of the longest possible row of train_batch."""
        return len(self.prompt_ids) + self.max_source_len + (0 if self.encoder_decoder else self.max_target_len)

    def encode(self, examples: Sequence[Example]) -> list[Example]:
        """Examples with their ids filled in."""
        if not examples:  # nothing validates MBPP, and tokenizers take no empty list
            return []
        cue = [] if self.encoder_decoder or self.cue is None else self.ids(f"\n{self.cue}", special=False)
        if len(cue) >= self.max_source_len:
            raise UserError(
                f"--max_source_len {self.max_source_len} leaves no room for a source beside the {len(cue)} tokens of '{self.cue}'"
            )
        texts, room = [e.source for e in examples], self.max_source_len - len(cue)
        if self.cue is None:
            sources = [ids[-room:] for ids in self.tokenizer(texts).input_ids]
        else:
            sources = self.tokenizer(texts, truncation=True, max_length=room).input_ids
        encoded = [
            dataclasses.replace(
                example,
                source_ids=(*source, *cue),
                target_ids=tuple(self.target_ids(example.target)),
                references=self.kept(example.references),
            )
            for example, source in zip(examples, sources, strict=True)
        ]
        for example in encoded:
            self.check_ids(example.source_ids, example.target_ids)
        return encoded

    def check_ids(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Raises UserError for an id beyond its embedding table, whose rows the prompt's ids follow."""
        for ids, rows in zip((source, target), self.table_rows or (), strict=False):
            if ids and (largest := max(ids)) >= rows:
                raise UserError(
                    f"the data holds the token {self.tokenizer.convert_ids_to_tokens(largest)!r}, id {largest:,}, but "
                    f"the model's embedding has only {rows:,} rows: --model needs the tokenizer that it was trained with"
                )

    def kept(self, references: tuple[str, ...]) -> tuple[str, ...]:
        if not self.cut_references:
            return references
        return tuple(self.text(self.target_ids(reference)) for reference in references)

    def ids(self, text: str, *, special: bool) -> list[int]:
        return self.tokenizer(text, add_special_tokens=special).input_ids

    def target_ids(self, text: str) -> list[int]:
        """Ids of a target with EOS, cut to max_target_len (EOS stays). A decoder-only model's target follows its cue
        after a blank.
        """
        ids = self.ids(text if self.encoder_decoder or self.cue is None else f" {text}", special=False)
        return [*ids[: self.max_target_len - 1], self.tokenizer.eos_token_id]

    def text(self, ids: Sequence[int]) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text if self.cue is None else text.strip()  # code begins with its indentation

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
        """{"input_ids", "attention_mask" [B, T]} for prediction: prompt and source, padded on the side away from the
        answer.
        """
        rows = [(*self.prompt_ids, *e.source_ids) for e in examples]
        return self.masked(rows, "right" if self.encoder_decoder else "left")

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
