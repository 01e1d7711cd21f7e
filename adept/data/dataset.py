"""A task's rows, loaded, rendered and split."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from adept.base.errors import UserError
from adept.config.run import TASK_OPTIONS, RunConfig, default_warmup, task_of
from adept.data.codec import Codec
from adept.data.example import Example
from adept.data.few_shot import few_shot
from adept.data.sources import data_files, load_rows
from adept.data.splits import split_rows
from adept.data.truncation import Truncation, measure_truncation
from adept.tasks.rows import Row
from adept.tasks.task import Task


@dataclass(frozen=True)
class Data:
    """The three splits as examples."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    fingerprint: str
    """A digest of all their strings."""
    origin: str
    files: Mapping[str, str]
    """{hub split: identity of its source} (adept/data/sources.py)."""
    truncation: Truncation | None = None
    """Of the encoded examples."""

    @property
    def sizes(self) -> dict[str, int]:
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


def encode_data(data: Data, codec: Codec) -> Data:
    """The data as token ids, and how much of them the codec's limits have cut."""
    splits = {name: codec.encode(getattr(data, name)) for name in ("train", "validation", "test")}
    return replace(data, **splits, truncation=measure_truncation(codec, [*itertools.chain(*splits.values())]))


def load_data(task: Task, config: RunConfig) -> Data:
    """Loads, renders and splits a task's rows as the paper does. Raises UserError naming the row that does not fit."""
    loaded, files = {}, data_files(task, config)
    for split in task.splits:
        rows, origin, where = load_rows(task, split, config)
        loaded[split] = render_rows(task, split, rows, where)
    parts = [list(itertools.chain(*rows)) for rows in split_rows(task, loaded, config.split_seed)]
    for name, part in zip(("training", "validation", "test"), parts, strict=True):
        if not part and (name != "validation" or task.split.validates):
            raise UserError(
                f"task '{task.name}' ({origin}): no {name} rows are left after the split ({task.split.value})"
            )
    train, validation, test = parts[0], parts[1][: config.eval_rows], parts[2][: config.eval_rows]
    if config.few_shot is not None:
        train = few_shot(train, config, task.labels)
    digest = hashlib.sha256()
    for example in (*train, *validation, *test):
        digest.update(f"{example.id}\0{example.source}\0{example.target}\0{example.references}\n".encode())
    return Data(train, validation, test, digest.hexdigest()[:16], origin, files)


DATA_OPTIONS = frozenset(
    {"task", "task_file", "data_dir", "data_revision", "split_seed", "targets", "few_shot", "eval_rows"}
)
"""Options of every run that decide about its examples, besides --seed and --few_shot_rule where --few_shot draws."""


@dataclass(frozen=True)
class DataSummary:
    """What is asked of data without training on them."""

    fingerprint: str
    training_rows: int


SUMMARIES: dict[tuple, DataSummary] = {}
"""By what decides about the data, since a sweep's many runs have few data sets."""


def summarise_data(config: RunConfig) -> DataSummary:
    """Fingerprint and size of a run's data, read once for all runs with the same. Raises UserError."""
    task = task_of(config)
    draw = (config.few_shot_rule, config.seed) if config.few_shot is not None else None
    options = [(name, config.get(name)) for name in sorted(DATA_OPTIONS | TASK_OPTIONS)]
    key = (*options, draw, *data_files(task, config).items())
    if key not in SUMMARIES:
        data = load_data(task, config)
        SUMMARIES[key] = DataSummary(data.fingerprint, len(data.train))
    return SUMMARIES[key]


def with_steps(config: RunConfig) -> RunConfig:
    """The configuration with --epochs turned into steps; as it is where --steps says how long it trains.

    So a run has the same id whichever of the two asked for it. Raises UserError for data that cannot be read.
    """
    if config.epochs is None:
        return config
    batches = math.ceil(summarise_data(config).training_rows / config.batch_size)
    steps = math.ceil(config.epochs * batches / config.grad_accum)
    warmup = config.warmup_steps if config.warmup_steps is not None else default_warmup(steps)
    return config.replace(epochs=None, steps=steps, warmup_steps=warmup)


def render_rows(task: Task, split: str, rows: Sequence[Row], where: str) -> list[list[Example]]:
    """The examples of each row: one, or several where the task expands its rows."""
    rendered = []
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(
                f"{where}, row {number}: not a row but {row!r:.40}; each line should hold {{column: value}}"
            )
        name, examples = f"{split}:{number}", []
        try:
            for part, piece in enumerate(task.expand(row) if task.expand else [row]):
                target, references = task.answer(piece)
                source, own = task.source(piece), f"{name}:{part}" if task.expand else name
                "".join((source, target, *references)).encode()  # half a character is an error here, with its row
                examples.append(Example(own, source, target, references, task.group(piece) if task.group else own))
        except KeyError as error:
            raise UserError(
                f"{where}, row {number}: task '{task.name}' needs the column {error}; found {', '.join(row)}"
            ) from error
        except (ArithmeticError, LookupError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError) as error:
            # MBPP's programs make Python's parser raise the unusual ones.
            raise UserError(f"{where}, row {number}: {error}") from error
        rendered.append(examples)
    if not rendered:
        raise UserError(f"{where}: no rows")
    return rendered
