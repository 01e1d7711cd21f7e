"""Writes a table's files, and results/README.md and the page of all tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adept.base.atomic_files import write_atomically
from adept.base.paths import ROOT
from adept.tables.markdown import markdown, table_csv
from adept.tables.page import write_page
from adept.tables.plots import CurvePanel, save_learning_curves
from adept.tables.report import QUANTITIES, View, build_view
from adept.tables.table import Table
from adept.tables.table_file import load_table


def curve_panels(view: View) -> list[CurvePanel]:
    """Validation scores of the chosen runs over steps: a panel for each column of scores, a colour for each row."""
    panels = []
    for column, metric in view.columns.items():
        if metric == "mean" or metric in QUANTITIES:
            continue
        curves = []
        for number, (row, by_column) in enumerate(view.cells.items()):
            cell = by_column.get(column)
            for index, record in enumerate(cell.records if cell else []):
                scores = [(entry["step"], entry["validation"].get(cell.metric)) for entry in record["history"]]
                points = [(step, score) for step, score in scores if score is not None]
                curves.append((number, row if index == 0 else None, points))
        panels.append(CurvePanel(column, f"validation {metric or 'score'} (%)", curves))
    return panels


def publish_table(table: Table) -> str:
    """Writes the table's files; returns what is printed."""
    view = build_view(table)
    text, folder = markdown(view), table.results_dir / "tables"
    write_atomically(folder / f"{table.name}.md", text)
    write_atomically(folder / f"{table.name}.csv", table_csv(view))
    drawn = ""
    scored = [c for c in view.all_cells if c.metric not in QUANTITIES]
    if any(len(record["history"]) > 1 for cell in scored for record in cell.records):
        save_learning_curves(folder / f"{table.name}.png", curve_panels(view))
        drawn = f"\ncurves:  {folder / table.name}.png"
    return f"\n{text}\ntable:   {folder / table.name}.md, .csv{drawn}\nrecords: {folder.parent / 'runs'}/"


OTHERS = ("quickstart", "first_results", "scoring")
"""Tables that are not the paper's and stand behind its on the page."""


def publish_all(tables: Sequence[Table]) -> str:
    """Writes results/README.md and the page of all tables; returns where they are.

    A table that a profile has not finished stands there as the paper has it.
    """
    views = []
    for table in tables:
        view = build_view(table)
        unfinished = table.profile and view.missing
        views.append(
            build_view(load_table(Path(table.path), {"results_dir": str(table.results_dir)})) if unfinished else view
        )
    others = (
        build_view(load_table(ROOT / "configs" / f"{name}.yaml", {"results_dir": str(tables[0].results_dir)}))
        for name in OTHERS
    )
    views += [view for view in others if not view.missing]
    folder = tables[0].results_dir
    heading = "# Results\n\nEvery table of the paper with our runs beside it, made by `bash scripts/all_tables.sh`. As a page: index.html.\n"
    write_atomically(folder / "README.md", "\n".join([heading, *(markdown(view) for view in views)]))
    write_page(views, folder / "index.html")
    return f"all tables: {folder / 'README.md'}, {folder / 'index.html'}"
