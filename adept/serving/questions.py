"""From the rows of a file to the questions that runs are asked, and back to rows with predictions."""

from __future__ import annotations

import datetime
import decimal
import math
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adept.base.errors import UserError, first_line
from adept.data.sources import jsonl_rows, numbered_rows, text_lines
from adept.serving.bank import Request
from adept.serving.load import Answer
from adept.serving.rendering import READY, MissingColumn, checked_text, ready_text, source_texts
from adept.serving.run_set import RunSet
from adept.tasks.rows import Row

STDIN = "-"
"""The name of standard input."""

PREDICTION, PROBABILITIES = "prediction", "probabilities"
"""The columns that a prediction adds."""

FILE_KINDS = (".jsonl", ".json", ".ndjson", ".csv", ".parquet")


class InputRows:
    """The rows of a file or of standard input: each time it is iterated over, (where the row stands, the row)."""

    def __init__(self, name: str, *, raw: bool = False):
        """raw: each line is a source. Raises UserError for a file of an unknown kind."""
        self.name, self.raw = name, raw
        if name != STDIN and not raw and Path(name).suffix not in FILE_KINDS:
            raise UserError(
                f"--input {name}: rows come from {', '.join(FILE_KINDS)}; --raw takes each line of a text as a source"
            )

    @property
    def repeatable(self) -> bool:
        """Whether it can be read more than once."""
        return self.name != STDIN

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        """Raises UserError naming file and line for what cannot be read."""
        if self.name == STDIN:
            yield from self.lines(sys.stdin.buffer if sys.stdin else (), "standard input")
        elif self.raw:
            try:
                with open(self.name, "rb") as file:
                    yield from self.lines(file, self.name)
            except OSError as error:
                raise UserError(f"cannot read {self.name}: {first_line(error)}") from error
        else:
            yield from numbered_rows(Path(self.name))

    def lines(self, file: Iterable[bytes], name: str) -> Iterator[tuple[str, Row]]:
        """The rows of a file's lines, blank ones skipped."""
        if not self.raw:
            yield from jsonl_rows(file, name)
            return
        for where, line in text_lines(file, name):
            yield where, {READY: line}


@dataclass(frozen=True)
class Question:
    """One row as it is asked. row: as JSON has it. texts: one, or several where the task makes several of a row."""

    row: dict[str, Any]
    run: str
    texts: tuple[str, ...]

    @property
    def requests(self) -> list[Request]:
        return [(self.run, text) for text in self.texts]

    def answered(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """The row with its prediction, a list of them where it asks several questions."""
        predictions = [answer.text for answer in answers]
        probabilities = [answer.probabilities for answer in answers]
        several = len(answers) > 1
        found = {PREDICTION: predictions if several else predictions[0]}
        if probabilities[0] is not None:
            found[PROBABILITIES] = probabilities if several else probabilities[0]
        return self.row | found


class QuestionReader:
    """Makes questions of rows: which run is asked, and what.

    The first row of a run decides whether all its rows have the task's columns or are ready sources.
    """

    def __init__(self, runs: RunSet, column: str = "adapter"):
        """column: it names the run that a row is for, where there are several."""
        self.runs, self.column = runs, column
        self.ready: dict[str, bool] = {}

    def read(self, where: str, row: Any) -> Question:
        """The question of a row. Raises UserError that says where the row stands."""
        try:
            return self.question(row)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error

    def question(self, row: Any) -> Question:
        """read() without the place."""
        if not isinstance(row, Mapping):
            raise UserError(f"not a row but {row!r:.40}; it should hold {{column: value}}")
        for column in (PREDICTION, PROBABILITIES):
            if column in row:
                raise UserError(f"the row has a column '{column}' already, which the prediction would replace")
        run = self.run_of(row)
        return Question(json_row(row), run, tuple(self.texts(run, row)))

    def run_of(self, row: Row) -> str:
        """The run that the row is for."""
        if len(self.runs.names) == 1:
            return self.runs.names[0]
        if self.column not in row:
            raise UserError(
                f"with {len(self.runs.names)} runs each row needs the column '{self.column}', which names one "
                "(--column takes another name)"
            )
        return self.runs.find(str(row[self.column]))

    def texts(self, run: str, row: Row) -> list[str]:
        """The texts that the run is asked."""
        if not self.ready.get(run, False):
            try:
                texts = source_texts(self.runs.tasks[run], row)
                self.ready[run] = False
                return texts
            except MissingColumn as error:
                if run in self.ready or READY not in row:
                    raise UserError(f"{error}; or give ready sources, {{'{READY}': text}}") from error
        text = ready_text(row)
        self.ready[run] = True
        return [text]


def json_row(row: Row) -> dict[str, Any]:
    """The row as JSON has it. Raises UserError for a value that JSON has no form for."""
    return {str(column): json_value(value, str(column)) for column, value in row.items()}


def json_value(value: Any, column: str) -> Any:
    """Dates and decimal numbers become text, numbers that are none become null."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case str():
            return checked_text(str(value))
        case None | bool() | int():
            return value
        case list() | tuple():
            return [json_value(item, column) for item in value]
        case dict():
            return {str(key): json_value(item, column) for key, item in value.items()}
        case datetime.date() | datetime.time() | datetime.timedelta() | decimal.Decimal() | uuid.UUID():
            return str(value)
    raise UserError(f"column '{column}' holds {value!r:.40}, which JSON has no form for")
