"""The grid of a table's section: heading, rows and cells, numbers as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adept.base.numbers import one_decimal, three_digits
from adept.tables.page.formatting import parse_count, shade, signed, thousands, typographic_minus
from adept.tables.page.runs import RunIndex, RunLink
from adept.tables.page.views import (
    Attributes,
    column_attributes,
    column_label,
    has_small_test,
    is_changed,
    is_score,
    records_of,
    row_attributes,
)
from adept.tables.published import Published
from adept.tables.report import MISSING, Cell, View
from adept.tables.significance import SIGNIFICANT, p_value_text
from adept.tables.table import QUANTITY


@dataclass(frozen=True)
class Column:
    label: str
    metric: str
    attributes: Attributes
    remark: str


@dataclass(frozen=True)
class GridCell:
    """A cell, its texts empty where there is nothing to show.

    score: our mean, or the sign of a missing run. spread, seeds, metric: behind it. paper, difference: below it.
    delta, p_value: of the paired test against the baseline. finished: "3 of 4 runs".
    quoted: the paper's number, in a row that only the paper has.
    shade: the class that colours the cell. value: the number by which the column is sorted.
    """

    score: str = ""
    runs: RunLink | None = None
    spread: str = ""
    seeds: int = 0
    small_test: bool = False
    metric: str = ""
    paper: str = ""
    difference: str = ""
    delta: str = ""
    p_value: str = ""
    significant: bool = False
    finished: str = ""
    quoted: str = ""
    shade: str = ""
    value: str = ""


@dataclass(frozen=True)
class GridRow:
    """trained: numbers of trained parameters; trained_value: what they are sorted by."""

    label: str
    trained: str
    trained_value: str
    cells: Sequence[GridCell]
    attributes: Attributes
    remark: str


@dataclass(frozen=True)
class Grid:
    """A table. paper_rows: rows that only the paper has."""

    axis: str
    columns: Sequence[Column]
    rows: Sequence[GridRow]
    paper_rows: Sequence[GridRow]


def make_grid(view: View, runs: RunIndex) -> Grid:
    columns = [
        Column(
            column_label(view, column),
            metric if metric and metric not in column else "",
            column_attributes(view, column),
            view.table.remarks.get(column, ""),
        )
        for column, metric in view.columns.items()
    ]
    rows = [grid_row(view, row, runs) for row in view.cells]
    paper_rows = [
        paper_row(view, method, by_column)
        for method, by_column in view.quoted.items()
        if any(column in by_column for column in view.columns)
    ]
    return Grid(" ".join(name for name in view.table.rows if name != QUANTITY), columns, rows, paper_rows)


def grid_row(view: View, row: str, runs: RunIndex) -> GridRow:
    by_column = view.cells[row]
    counts = sorted({record["trainable_params"] for cell in by_column.values() for record in records_of(cell)})
    cells = [
        grid_cell(view, by_column[column], runs, name_metric=metric is None) if column in by_column else GridCell()
        for column, metric in view.columns.items()
    ]
    trained = " / ".join(thousands(count) for count in counts) or MISSING
    value = str(counts[0]) if counts else ""
    return GridRow(row, trained, value, cells, row_attributes(view, row), view.table.remarks.get(row, ""))


def paper_row(view: View, method: str, by_column: dict[str, Published]) -> GridRow:
    params = next(iter(by_column.values())).params
    count = parse_count(params)
    cells = []
    for column in view.columns:
        paper = by_column.get(column)
        value = "" if paper is None or paper.value is None else str(paper.value)
        cells.append(GridCell(quoted=paper_number(paper), value=value))
    attributes = {"method": f"|{method}|"} if "method" in view.table.rows else {}
    value = "" if count is None else str(count)
    return GridRow(method, params or MISSING, value, cells, attributes, view.table.remarks.get(method, ""))


def grid_cell(view: View, cell: Cell, runs: RunIndex, *, name_metric: bool) -> GridCell:
    """name_metric: whether the cell says which metric it shows, where those of a column differ."""
    points = is_score(cell)
    to_text = one_decimal if points else three_digits  # speeds, hours and sizes of offsets span orders of magnitude
    difference, test = cell.difference, view.tests.get((cell.row, cell.column))
    texts = {}
    if cell.mean is not None:
        texts = {
            "score": typographic_minus(to_text(cell.mean)),
            "runs": runs.link(records_of(cell)),
            "spread": "" if cell.std is None else to_text(cell.std),
            "seeds": len(cell.values),
            "small_test": has_small_test(cell),
            "metric": cell.metric if name_metric else "",
            "value": f"{cell.mean:.6g}",
        }
    elif cell.planned or cell.parts:
        texts = {"score": MISSING}
    if cell.paper and cell.paper.value is not None:
        texts["paper"] = paper_number(cell.paper)
    if difference is not None:
        arrow = ("▲" if difference > 0 else "▼") if to_text(abs(difference)).strip("0.") else ""
        texts["difference"] = f"{arrow} {signed(difference, to_text)}"
    if test:
        texts |= {
            "delta": signed(-test["difference"]),
            "p_value": p_value_text(test["p"]),
            "significant": test["p"] < SIGNIFICANT,
        }
    if cell.missing:
        texts["finished"] = f"{cell.planned - cell.missing} of {cell.planned} runs"
    # Only like is coloured beside like: not speeds and sizes, and no table whose runs were changed.
    if difference is not None and points and not is_changed(view):
        texts["shade"] = shade(difference)
    return GridCell(**texts)


def paper_number(paper: Published | None) -> str:
    """As printed, with the spread. A whole number gets back the ".0" that a float does not keep."""
    if paper is None or paper.value is None:
        return MISSING
    texts = [f"{value:g}" for value in (paper.value, paper.std) if value is not None]
    return typographic_minus(" ± ".join(text if "." in text or "e" in text else f"{text}.0" for text in texts))
