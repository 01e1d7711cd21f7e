"""Which of the paper's tables have been run: a line a table, made from the same views as the tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from adept.config.identities import model_label
from adept.tables.cell import MISSING, Cell, number_text
from adept.tables.markdown import escape, table_lines
from adept.tables.report import View


def status_table(views: Sequence[View]) -> str:
    """Table, model, finished runs of planned ones, and a number of the paper beside one of ours."""
    rows = [status_cells(view) for view in views if view.compared]
    return "\n".join(table_lines(["table", "model", "runs done", "paper", "ours"], rows)) + "\n"


def status_cells(view: View) -> list[str]:
    """The texts of a table's line. The numbers are those of the first cell of the baseline, or of any, that has one."""
    models = dict.fromkeys(model_label(record["config"]["model"]) for cell in view.all_cells for record in cell.records)
    return [
        escape(view.table.title),
        ", ".join(models) or MISSING,
        f"{view.planned - view.missing:,} of {view.planned:,}",
        *(
            f"{text(cell)} ({escape(f'{cell.row} {cell.column}')})" if cell else MISSING
            for cell, text in (
                (first_cell(view, lambda cell: cell.paper and cell.paper.value is not None), paper_text),
                (first_cell(view, lambda cell: cell.mean is not None), Cell.ours),
            )
        ),
    ]


def first_cell(view: View, has_number: Callable[[Cell], object]) -> Cell | None:
    """Of the baseline's cells that have the number, or else of all, the first."""
    cells = [cell for cell in view.all_cells if has_number(cell)]
    baseline = [cell for cell in cells if view.table.compare_with.items() <= cell.options.items()]
    return next(iter(baseline or cells), None)


def paper_text(cell: Cell) -> str:
    return number_text(cell.paper.value if cell.paper else None)
