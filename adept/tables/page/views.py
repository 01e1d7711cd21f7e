"""What the page asks of a table's View: kinds of cells, their records, and the attributes by which the page filters."""

from __future__ import annotations

import re
from collections.abc import Iterable

from adept.config.identities import model_label
from adept.tables.cell import QUANTITIES, Cell
from adept.tables.report import View
from adept.tables.table import QUANTITY

FILTERS = ("task", "method", "model")
"""The fields by which the page filters rows, columns, tables and plots."""

Attributes = dict[str, str]
"""{"task": "|rte|cb|"}: values between bars, which the templates write as data-task and page.js reads."""


def filter_attributes(cells: Iterable[Cell], names: Iterable[str]) -> Attributes:
    """The values that the planned runs of `cells` have in the fields `names`."""
    configs = [cell.config for cell in cells if cell.config]
    values = {
        name: dict.fromkeys(model_label(config.model) if name == "model" else config.get(name) for config in configs)
        for name in names
    }
    return {name: f"|{'|'.join(found)}|" for name, found in values.items() if found}


def row_attributes(view: View, row: str) -> Attributes:
    return filter_attributes(view.cells[row].values(), [name for name in FILTERS if name in view.table.rows])


def column_attributes(view: View, column: str) -> Attributes:
    """Those of a column; of a mean over tasks, those of its tasks."""
    cells = [by_column[column] for by_column in view.cells.values() if column in by_column]
    return filter_attributes(
        [part for cell in cells for part in cell.parts or [cell]],
        [name for name in FILTERS if name in view.table.columns],
    )


def column_label(view: View, column: str) -> str:
    """The column's name, with its field's name before it where its values are bare numbers."""
    fields = [name for name in view.table.columns if name not in (*FILTERS, QUANTITY)]
    return f"{' '.join(fields)} {column}" if fields and re.fullmatch(r"[\d.e+-]+", column) else column


def records_of(cell: Cell) -> list[dict]:
    """The records of a cell; of a mean over tasks, those of its tasks."""
    return [record for part in cell.parts for record in part.records] or cell.records


def is_score(cell: Cell) -> bool:
    """Whether the cell is in points of percent; means over tasks are."""
    return bool(cell.parts) or cell.metric not in QUANTITIES


def is_changed(view: View) -> bool:
    """Whether a profile or the command line changed the runs of the table."""
    return bool(view.table.profile or view.table.only or view.changed)


def has_small_test(cell: Cell) -> bool:
    """Whether the cell's test sets are known, and one of them is small."""
    return all("sizes" in record for record in cell.records) and cell.small
