"""Rows -> splits -> Examples -> token ids -> batches."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import hashlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adept.config import RunConfig, UserError, first_line
from adept.tasks import Split, Task
from adept.text import Row, Untyped

IGNORED = -100
"""Label of positions without loss (torch's cross_entropy default)."""

FIXTURES = "fixtures"
"""--data_dir fixtures: the rows written by hand for the tests (adept/tiny.py)."""


@dataclass(frozen=True)
class Example:
    """One row as strings, and as ids once tokenised.

    id: "<hub split>:<row>" (and ":<number>" where a row makes several examples), so that a prediction can be traced to its row.
    group: examples with the same key are one question to the metrics.
    """

    id: str
    source: str
    target: str
    references: tuple[str, ...]
    group: str = ""
    source_ids: tuple[int, ...] = ()
    target_ids: tuple[int, ...] = ()  # EOS included

    @property
    def length(self) -> int:
        return len(self.source_ids) + len(self.target_ids)


# Loading ----------------------------------------------------------------------------------------------------------------


def load_rows(task: Task, split: str, config: RunConfig) -> tuple[list[Row], str, str]:
    """(rows of one hub split, their origin: "local", "bundled" or "hub:<id>/<config>", and the same as an error names it).

    Order: --data_dir, then the task file's own files, then the bundled data, then the hub. Raises UserError in one line when none has them.
    """
    looked = []
    if config.data_dir is not None:
        root = Path(config.data_dir)
        if config.data_dir == FIXTURES:
            from adept.tiny import data_folder

            root = data_folder()
        folder = root / task.name
        if not os.path.isdir(root):
            raise UserError(f"--data_dir {config.data_dir} is not a folder; it should hold <task>/<split>.parquet or .jsonl")
        for path in (folder / f"{split}.parquet", folder / f"{split}.jsonl"):
            if os.path.isfile(path):
                return read_rows(path), "local", str(path)
        looked.append(f"{folder}/{split}.parquet and .jsonl")
    if split in task.files:
        if not os.path.isfile(task.files[split]):
            raise UserError(f"task file {config.task_file}: files: {split} is not there: {task.files[split]}")
        return read_rows(task.files[split]), "local", str(task.files[split])
    if task.hub is None:
        from adept.bundled import movie_reviews

        path = movie_reviews() / f"{split}.jsonl"
        return read_rows(path), "bundled", str(path)
    name, subset = task.hub
    revision = config.data_revision or task.revision
    pinned = f"@{revision}" if revision else ""
    there = task.on_hub.get(split, split)
    origin = there if there.startswith("https://") else f"hub:{name}/{subset}{pinned}"
    try:
        rows = load_hub_rows(name, subset, there, revision)
    except Exception as error:  # the libraries' errors for what a hub may answer have no base of their own
        looked.append(
            f"'{name}' ({subset}{pinned and f', revision {revision}'}) in the hub's cache and on the hub ({first_line(error, 100)})"
        )
        raise UserError(
            f"data of task '{task.name}' not found: looked for {', then '.join(looked)}. "
            f"Offline, --data_dir DIR reads DIR/{task.name}/{split}.parquet or .jsonl, "
            "and --task movie_reviews --model smollm2-135m comes from the package index"
        ) from error
    return rows, origin, f"{task.name}/{split} ({origin})"


def load_hub_rows(name: str, subset: str | None, split: str, revision: str | None) -> list[Row]:
    """Rows of a hub data set, or of the .jsonl file whose URL stands for the split. Raises what the libraries raise."""
    import datasets
    import huggingface_hub

    if split.startswith("https://"):
        return datasets.load_dataset("json", data_files=split, split="train").to_list()
    commit = revision
    if revision and not re.fullmatch(r"[0-9a-f]{40}", revision):
        commit = huggingface_hub.HfApi().dataset_info(name, revision=revision).sha
    rows = datasets.load_dataset(name, subset, split=split, revision=commit)
    # Without a hub, `datasets` serves whatever revision was cached last.
    if commit and any(commit not in Path(file["filename"]).parts for file in rows.cache_files):
        raise OSError(f"the cache holds another revision, and the hub does not give {revision}")
    return rows.to_list()


def read_rows(path: Path) -> list[Row]:
    """All rows of a .parquet, .jsonl or .csv file. Raises UserError naming file and line when it cannot be read."""
    try:
        match path.suffix:
            case ".parquet":
                return read_parquet(path)
            case ".csv":
                return read_csv(path)
            case _:
                return read_jsonl(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {first_line(error)}") from error


def read_parquet(path: Path) -> list[Row]:
    """Rows of a .parquet file. Raises ValueError for a torn one, and for values that Python has no type for."""
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, ArithmeticError) as error:
        raise ValueError(str(error)) from error


def read_jsonl(path: Path) -> list[Row]:
    """One JSON value a line, blank lines skipped. Raises UserError naming the line."""
    rows = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            try:
                if line.strip():
                    rows.append(json.loads(line.decode("utf-8")))
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not JSON ({error.msg})") from error
            except (UnicodeDecodeError, RecursionError) as error:
                raise UserError(f"{path}, line {number}: {first_line(error)}") from error
    return rows


def read_csv(path: Path) -> list[Row]:
    """Rows whose cells are the text that is written: no cell turns into a number, a date or nothing. Raises UserError naming the line."""
    csv.field_size_limit(2**31 - 1)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            if twice := [column for column, count in Counter(header).items() if count > 1]:
                raise UserError(f"{path}, line 1: the column '{twice[0]}' is there twice")
            rows = []
            for cells in reader:
                if cells and len(cells) != len(header):
                    raise UserError(f"{path}, line {reader.line_num}: {len(cells)} cells, but the header has {len(header)} columns")
                if cells:
                    rows.append(dict(zip(header, map(Untyped, cells), strict=True)))
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    return rows


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
        rows, origin, where = load_rows(task, split, config)
        loaded[split] = render(task, split, rows, where, config)
    parts = [list(itertools.chain(*rows)) for rows in split_rows(task, loaded, config.split_seed)]
    for name, part in zip(("training", "validation", "test"), parts, strict=True):
        if not part and not (name == "validation" and task.split is Split.HALVE_ROWS):
            raise UserError(f"task '{task.name}' ({origin}): no {name} rows are left after the split ({task.split.value})")
    train, validation, test = parts[0], parts[1][: config.eval_rows], parts[2][: config.eval_rows]
    if config.few_shot is not None:
        train = few_shot(train, config, task.labels(config))
    digest = hashlib.sha256()
    for example in (*train, *validation, *test):
        digest.update(f"{example.id}\0{example.source}\0{example.target}\0{example.references}\n".encode())
    return Data(train, validation, test, digest.hexdigest()[:16], origin)


def render(task: Task, split: str, rows: Sequence[Row], where: str, config: RunConfig) -> list[list[Example]]:
    """The examples of each row: one, or several where the task expands its rows."""
    rendered = []
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(f"{where}, row {number}: not a row but {row!r:.40}; each line should hold {{column: value}}")
        name, examples = f"{split}:{number}", []
        try:
            for part, piece in enumerate(task.expand(row) if task.expand else [row]):
                target, references = task.answer(piece, config)
                source, own = task.source(piece, config), f"{name}:{part}" if task.expand else name
                "".join((source, target, *references)).encode()  # half a character is told here, with its row
                examples.append(Example(own, source, target, references, task.group(piece) if task.group else own))
        except KeyError as error:
            raise UserError(f"{where}, row {number}: task '{task.name}' needs the column {error}; found {', '.join(row)}") from error
        except (ArithmeticError, LookupError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError) as error:
            raise UserError(f"{where}, row {number}: {error}") from error  # MBPP's programs make the parser raise the odd ones
        rendered.append(examples)
    if not rendered:
        raise UserError(f"{where}: no rows")
    return rendered


def permutation(count: int, seed: int) -> list[int]:
    """The released code's torch.randperm: the same seed gives the same halves."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()


def split_rows(task: Task, loaded: dict[str, list], seed: int) -> tuple[list, list, list]:
    """(train, validation, test) rows of any kind by the task's split rule. Raises UserError when 1,000 rows cannot be carved."""
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
        case Split.HALVE_ROWS:
            (rows,) = parts
            train, validation, test = rows[: len(rows) // 2], [], rows[len(rows) // 2 :]
    return train[: task.max_train], validation, test


def few_shot(examples: list[Example], config: RunConfig, labels: Sequence[str] | None) -> list[Example]:
    """--few_shot examples drawn by --seed. Raises UserError when there are not as many."""
    if config.few_shot > len(examples):
        raise UserError(f"--few_shot {config.few_shot} is more than the {len(examples)} training rows")
    draw = few_shot_released if config.few_shot_rule == "released" else few_shot_balanced
    return draw(examples, config, labels)


def few_shot_balanced(examples: list[Example], config: RunConfig, labels: Sequence[str] | None) -> list[Example]:
    """As many of each class as of any other (one more of some where it does not divide); free text has no classes to balance."""
    shuffled = [examples[i] for i in permutation(len(examples), config.seed)]
    if labels is None:
        return shuffled[: config.few_shot]
    by_class: dict[str, list[Example]] = {}
    for example in shuffled:
        by_class.setdefault(example.target, []).append(example)
    chosen: list[Example] = []
    while len(chosen) < config.few_shot:
        for queue in by_class.values():
            if queue and len(chosen) < config.few_shot:
                chosen.append(queue.pop(0))
    return chosen


def few_shot_released(examples: list[Example], config: RunConfig, labels: Sequence[str] | None) -> list[Example]:
    """The released code's draw: k // classes of each, and any class for the k-th alone, so that 3 classes give 30 examples of 32.

    STS-B counts as two classes, up to 2.5 and above; other free text raises UserError, as there.
    """

    def class_of(example: Example) -> str:
        if labels is not None:
            return example.target
        try:
            return str(float(example.target) > 2.5)
        except ValueError as error:
            raise UserError(
                f"the released few-shot draw knows no classes of '{config.task}', whose targets are free text: --few_shot_rule balanced"
            ) from error

    share = config.few_shot // (len(labels) if labels is not None else 2)
    counts: dict[str, int] = {}
    chosen: list[Example] = []
    for i in np.random.default_rng(config.seed).permutation(len(examples)).tolist():  # what datasets' shuffle(seed) does
        if len(chosen) == config.few_shot:
            break
        name = class_of(examples[i])
        if counts.get(name, 0) < share or len(chosen) == config.few_shot - 1:
            counts[name] = counts.get(name, 0) + 1
            chosen.append(examples[i])
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
    Without a cue the target continues the source (code): nothing stands between them, and truncation takes the source's beginning.
    """

    tokenizer: object
    encoder_decoder: bool
    prompt_ids: tuple[int, ...]  # [m] ids >= V
    max_source_len: int
    max_target_len: int
    cue: str | None
    cut_references: bool = False  # references pass through the tokenizer and max_target_len too (released code)
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
        return [
            dataclasses.replace(
                example,
                source_ids=(*source, *cue),
                target_ids=tuple(self.target_ids(example.target)),
                references=self.kept(example.references),
            )
            for example, source in zip(examples, sources, strict=True)
        ]

    def kept(self, references: tuple[str, ...]) -> tuple[str, ...]:
        if not self.cut_references:
            return references
        return tuple(self.text(self.target_ids(reference)) for reference in references)

    def ids(self, text: str, *, special: bool) -> list[int]:
        return self.tokenizer(text, add_special_tokens=special).input_ids

    def target_ids(self, text: str) -> list[int]:
        """Ids of a target with EOS, cut to max_target_len (EOS stays). A decoder-only model's target follows its cue after a blank."""
        ids = self.ids(text if self.encoder_decoder or self.cue is None else f" {text}", special=False)
        return [*ids[: self.max_target_len - 1], self.tokenizer.eos_token_id]

    def text(self, ids: Sequence[int]) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text if self.cue is None else text.strip()  # code begins with its indentation

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
    filling = [[value] * (width - len(row)) for row in rows]
    return torch.tensor([[*row, *more] if side == "right" else [*more, *row] for row, more in zip(rows, filling, strict=True)])


# Order ------------------------------------------------------------------------------------------------------------------


def batch_indices(lengths: Sequence[int], batch_size: int, seed: int, *, group_by_length: bool, skip: int = 0) -> Iterator[list[int]]:
    """Endless batches of row numbers: every epoch visits each row once, in an order that depends on (seed, epoch) alone.

    group_by_length: a shuffled stretch of 50 batches is sorted by length, cut into batches, and the batches are shuffled.
    A last batch may be smaller. skip: the first batches to leave out; whole epochs of them cost nothing.
    """
    first, skip = divmod(skip, -(-len(lengths) // batch_size))
    for epoch in itertools.count(first):
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        order = torch.randperm(len(lengths), generator=generator).tolist()
        if group_by_length:
            stretch = 50 * batch_size
            order = [i for k in range(0, len(order), stretch) for i in sorted(order[k : k + stretch], key=lambda i: lengths[i])]
        batches = [order[k : k + batch_size] for k in range(0, len(order), batch_size)]
        if group_by_length:
            batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
        yield from batches[skip:]
        skip = 0
