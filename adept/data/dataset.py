"""A task's rows, loaded, rendered and split."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adept.base.errors import UserError
from adept.config.run import RunConfig
from adept.data.example import Example
from adept.data.few_shot import few_shot
from adept.data.sources import data_files, load_rows
from adept.data.splits import split_rows
from adept.tasks.rows import Row
from adept.tasks.task import Split, Task


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

    @property
    def sizes(self) -> dict[str, int]:
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


def load_data(task: Task, config: RunConfig) -> Data:
    """Loads, renders and splits a task's rows as the paper does. Raises UserError naming the row that does not fit."""
    loaded, files = {}, data_files(task, config)
    for split in task.splits:
        rows, origin, where = load_rows(task, split, config)
        loaded[split] = render_rows(task, split, rows, where)
    parts = [list(itertools.chain(*rows)) for rows in split_rows(task, loaded, config.split_seed)]
    for name, part in zip(("training", "validation", "test"), parts, strict=True):
        if not part and not (name == "validation" and task.split is Split.HALVE_ROWS):
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
                "".join((source, target, *references)).encode()  # half a character is told here, with its row
                examples.append(Example(own, source, target, references, task.group(piece) if task.group else own))
        except KeyError as error:
            raise UserError(
                f"{where}, row {number}: task '{task.name}' needs the column {error}; found {', '.join(row)}"
            ) from error
        except (ArithmeticError, LookupError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError) as error:
            raise UserError(
                f"{where}, row {number}: {error}"
            ) from error  # MBPP's programs make the parser raise the odd ones
        rendered.append(examples)
    if not rendered:
        raise UserError(f"{where}: no rows")
    return rendered
