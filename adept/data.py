"""Rows -> splits -> Examples -> token ids -> batches."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from adept.config import RunConfig, UserError, first_line
from adept.tasks import Row, Split, Task

IGNORED = -100
"""Label of positions without loss (torch's cross_entropy default)."""


@dataclass(frozen=True)
class Example:
    """One row as strings, and as ids once tokenised. `id` is "<hub split>:<row>", so a prediction can be traced to its row."""

    id: str
    source: str
    target: str
    references: tuple[str, ...]
    source_ids: tuple[int, ...] = ()
    target_ids: tuple[int, ...] = ()  # EOS included

    @property
    def length(self) -> int:
        return len(self.source_ids) + len(self.target_ids)


# Loading ----------------------------------------------------------------------------------------------------------------


def load_rows(task: Task, split: str, config: RunConfig) -> tuple[list[Row], str]:
    """(rows of one hub split, where they came from: "local", "bundled" or "hub:<id>/<config>").

    Order: --data_dir, then the bundled data, then the hub. Raises UserError in one line when none has them.
    """
    looked = []
    if config.data_dir is not None:
        folder = Path(config.data_dir) / task.name
        if not Path(config.data_dir).is_dir():
            raise UserError(f"--data_dir {config.data_dir} is not a folder; it should hold <task>/<split>.parquet or .jsonl")
        for path in (folder / f"{split}.parquet", folder / f"{split}.jsonl"):
            if path.is_file():
                return read_rows(path), "local"
        looked.append(f"{folder}/{split}.parquet and .jsonl")
    if task.hub is None:
        from adept.bundled import movie_reviews

        path = movie_reviews() / f"{split}.jsonl"
        return read_rows(path), "bundled"
    name, subset = task.hub
    try:
        import datasets

        rows = datasets.load_dataset(name, subset, split=split).to_list()
    except (ImportError, OSError, ValueError, RuntimeError) as error:  # what datasets raises when it cannot serve the id
        looked.append(f"'{name}' ({subset}) in the hub's cache and on the hub ({first_line(error, 100)})")
        raise UserError(
            f"data of task '{task.name}' not found: looked for {', then '.join(looked)}. "
            f"Offline, --data_dir DIR reads DIR/{task.name}/{split}.parquet or .jsonl, "
            "and --task movie_reviews --model smollm2-135m comes from the package index"
        ) from error
    return rows, f"hub:{name}/{subset}"


def read_rows(path: Path) -> list[Row]:
    """All rows of a .parquet or .jsonl file. Raises UserError naming file and line when it cannot be read."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            return pyarrow.parquet.read_table(path).to_pylist()
        rows = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not JSON ({error.msg})") from error
        return rows
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(f"cannot read {path}: {first_line(error)}") from error


@dataclass(frozen=True)
class Data:
    """The three splits as examples, and a digest of all their strings."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    fingerprint: str
    origin: str

    @property
    def sizes(self) -> dict[str, int]:
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


def load_data(task: Task, config: RunConfig) -> Data:
    """Loads, renders and splits a task's rows as the paper does. Raises UserError naming the row that does not fit."""
    loaded = {}
    for split in task.splits:
        rows, origin = load_rows(task, split, config)
        loaded[split] = render(task, split, rows, f"{task.name}/{split} ({origin})", config)
    train, validation, test = split_examples(task, loaded, config.split_seed)
    for name, part in (("training", train), ("validation", validation), ("test", test)):
        if not part:
            raise UserError(f"task '{task.name}' ({origin}): no {name} rows are left after the split ({task.split.value})")
    if config.few_shot is not None:
        train = few_shot(train, config.few_shot, config.seed)
    digest = hashlib.sha256()
    for example in (*train, *validation, *test):
        digest.update(f"{example.id}\0{example.source}\0{example.target}\0{example.references}\n".encode())
    return Data(train, validation, test, digest.hexdigest()[:16], origin)


def render(task: Task, split: str, rows: Sequence[Row], where: str, config: RunConfig) -> list[Example]:
    examples = []
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(f"{where}, row {number}: not a row but {row!r:.40}; each line should hold {{column: value}}")
        try:
            source = task.source(row, config)
            target, references = task.answer(row, config)
        except KeyError as error:
            raise UserError(f"{where}, row {number}: task '{task.name}' needs the column {error}; found {', '.join(row)}") from error
        except (ValueError, TypeError) as error:
            raise UserError(f"{where}, row {number}: {error}") from error
        examples.append(Example(f"{split}:{number}", source, target, references))
    if not examples:
        raise UserError(f"{where}: no rows")
    return examples


def permutation(count: int, seed: int) -> list[int]:
    """The released code's torch.randperm: the same seed gives the same halves."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()


def split_examples(task: Task, loaded: dict[str, list[Example]], seed: int) -> tuple[list[Example], list[Example], list[Example]]:
    """(train, validation, test) by the task's split rule. Raises UserError when 1,000 rows cannot be carved."""
    parts = [loaded[name] for name in task.splits]
    match task.split:
        case Split.NATIVE:
            train, validation, test = parts
        case Split.HALVE_VALIDATION:
            train, evaluation = parts
            order = permutation(len(evaluation), seed)
            half = len(evaluation) // 2
            validation, test = [evaluation[i] for i in order[:half]], [evaluation[i] for i in order[half:]]
        case Split.CARVE_1000:
            rows, test = parts
            if len(rows) <= 1000:
                raise UserError(f"task '{task.name}' sets 1,000 training rows aside for validation, but only {len(rows)} are there")
            order = permutation(len(rows), seed)
            validation, train = [rows[i] for i in order[:1000]], [rows[i] for i in order[1000:]]
    return train, validation, test


def few_shot(examples: list[Example], count: int, seed: int) -> list[Example]:
    """`count` examples, as many of each class as of any other (one more of some where it does not divide), drawn by `seed`."""
    if count > len(examples):
        raise UserError(f"--few_shot {count} is more than the {len(examples)} training rows")
    shuffled = [examples[i] for i in permutation(len(examples), seed)]
    by_class: dict[str, list[Example]] = {}
    for example in shuffled:
        by_class.setdefault(example.target, []).append(example)
    if len(by_class) > count:  # free text: there are no classes to balance
        return shuffled[:count]
    chosen: list[Example] = []
    while len(chosen) < count:
        for queue in by_class.values():
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    return chosen


# Tokens -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Codec:
    """Strings to ids and ids to batches, for both kinds of model.

    |                | encoder-decoder           | decoder-only                                   |
    | train input    | [prompt][source]          | [prompt][source][target][eos], right padded    |
    | labels         | [target][eos]             | -100 on prompt and source                      |
    | generate input | same as train             | [prompt][source], left padded                  |

    Truncation removes source tokens, never prompt, cue or target. Masks come from lengths, since many models pad with EOS.
    """

    tokenizer: object
    encoder_decoder: bool
    prompt_ids: tuple[int, ...]  # [m] ids >= V
    max_source_len: int
    max_target_len: int
    cue: str
    multiple: int = 8  # batch widths are rounded up to this, so that few shapes occur

    def encode(self, examples: Sequence[Example]) -> list[Example]:
        """Examples with their ids filled in."""
        cue = [] if self.encoder_decoder else self.ids(f"\n{self.cue}", special=False)
        if len(cue) >= self.max_source_len:
            raise UserError(
                f"--max_source_len {self.max_source_len} leaves no room for a source beside the {len(cue)} tokens of '{self.cue}'"
            )
        sources = self.tokenizer([e.source for e in examples], truncation=True, max_length=self.max_source_len - len(cue)).input_ids
        return [
            dataclasses.replace(example, source_ids=(*source, *cue), target_ids=tuple(self.target_ids(example.target)))
            for example, source in zip(examples, sources, strict=True)
        ]

    def ids(self, text: str, *, special: bool) -> list[int]:
        return self.tokenizer(text, add_special_tokens=special).input_ids

    def target_ids(self, text: str) -> list[int]:
        """Ids of a target with EOS, cut to max_target_len (EOS stays). A decoder-only model's target follows its cue after a blank."""
        ids = self.ids(text if self.encoder_decoder else f" {text}", special=False)
        return [*ids[: self.max_target_len - 1], self.tokenizer.eos_token_id]

    def text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def train_batch(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Arguments of the model whose output's `.loss` is the mean over target tokens.

        {"input_ids", "attention_mask" [B, T]} and "labels" [B, L]; for decoder-only models, "labels" and "shift_labels" [B, K]
        are those of the K positions in "logits_to_keep".
        """
        if self.encoder_decoder:
            batch = self.source_batch(examples)
            batch["labels"] = pad([e.target_ids for e in examples], IGNORED, "right", 1)
            return batch
        rows = [(*self.prompt_ids, *e.source_ids, *e.target_ids) for e in examples]
        silent = [len(self.prompt_ids) + len(e.source_ids) for e in examples]
        labels = pad([(*[IGNORED] * n, *row[n:]) for n, row in zip(silent, rows, strict=True)], IGNORED, "right", self.multiple)
        # Position t predicts label t + 1. Logits are wanted where some row has a target, a few of all positions: with a large
        # vocabulary the output head is a fifth of a small model's arithmetic.
        following = torch.cat([labels[:, 1:], labels.new_full((len(rows), 1), IGNORED)], dim=1)
        wanted = (following != IGNORED).any(0).nonzero()[:, 0]  # [K]
        aligned = following[:, wanted]  # [B, K]
        return {**self.masked(rows, "right"), "labels": aligned, "shift_labels": aligned, "logits_to_keep": wanted}

    def source_batch(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """{"input_ids", "attention_mask" [B, T]} for prediction: prompt and source, padded on the side away from the answer."""
        rows = [(*self.prompt_ids, *e.source_ids) for e in examples]
        return self.masked(rows, "right" if self.encoder_decoder else "left")

    def masked(self, rows: Sequence[Sequence[int]], side: str) -> dict[str, Tensor]:
        return {
            "input_ids": pad(rows, self.tokenizer.pad_token_id, side, self.multiple),
            "attention_mask": pad([[1] * len(row) for row in rows], 0, side, self.multiple),
        }


def pad(rows: Sequence[Sequence[int]], value: int, side: str, multiple: int) -> Tensor:
    """[B, T] with T the longest row rounded up to `multiple`."""
    width = -(-max(map(len, rows)) // multiple) * multiple
    batch = torch.full((len(rows), width), value)
    for i, row in enumerate(rows):
        start = 0 if side == "right" else width - len(row)
        batch[i, start : start + len(row)] = torch.tensor(row)
    return batch


# Order ------------------------------------------------------------------------------------------------------------------


def batch_indices(lengths: Sequence[int], batch_size: int, seed: int, *, group_by_length: bool) -> Iterator[list[int]]:
    """Endless batches of row numbers: every epoch visits each row once, in an order that depends on (seed, epoch) alone.

    group_by_length: a shuffled stretch of 50 batches is sorted by length, cut into batches, and the batches are shuffled.
    A last batch may be smaller.
    """
    epoch = 0
    while True:
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        order = torch.randperm(len(lengths), generator=generator).tolist()
        if group_by_length:
            stretch = 50 * batch_size
            order = [i for k in range(0, len(order), stretch) for i in sorted(order[k : k + stretch], key=lambda i: lengths[i])]
        batches = [order[k : k + batch_size] for k in range(0, len(order), batch_size)]
        if group_by_length:
            batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
        yield from batches
        epoch += 1
