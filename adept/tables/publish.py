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

OTHER_TABLES = ("quickstart", "first_results", "scoring")
"""Tables that the paper does not have. On the page they come after the paper's."""

HEADING = """\
# Results

Every table of the paper with our runs beside it, made by `bash scripts/all_tables.sh`. As a page: index.html.
"""


def publish_table(table: Table) -> str:
    """Writes RESULTS_DIR/tables/<table>.md, .csv and, where runs were evaluated more than once, .png.

    Returns the table in Markdown, with the places of these files below it.
    """
    view = build_view(table)
    text, folder = markdown(view), table.results_dir / "tables"
    write_atomically(folder / f"{table.name}.md", text)
    write_atomically(folder / f"{table.name}.csv", table_csv(view))
    curves = ""
    scored = [cell for cell in view.all_cells if cell.metric not in QUANTITIES]
    if any(len(record["history"]) > 1 for cell in scored for record in cell.records):
        save_learning_curves(folder / f"{table.name}.png", curve_panels(view))
        curves = f"\ncurves:  {folder / table.name}.png"
    return f"\n{text}\ntable:   {folder / table.name}.md, .csv{curves}\nrecords: {folder.parent / 'runs'}/"


def curve_panels(view: View) -> list[CurvePanel]:
    """The chosen runs' validation scores over steps: a panel for each column of scores, a colour for each row."""
    panels = []
    for column, metric in view.columns.items():
        if metric == "mean" or metric in QUANTITIES:
            continue
        curves = []
        for colour, (row, by_column) in enumerate(view.cells.items()):
            cell = by_column.get(column)
            for index, record in enumerate(cell.records if cell else []):
                scores = [(entry["step"], entry["validation"].get(cell.metric)) for entry in record["history"]]
                points = [(step, score) for step, score in scores if score is not None]
                curves.append((colour, row if index == 0 else None, points))
        panels.append(CurvePanel(column, f"validation {metric or 'score'} (%)", curves))
    return panels


def publish_all(tables: Sequence[Table]) -> str:
    """Writes RESULTS_DIR/README.md and the page RESULTS_DIR/index.html. Returns the line that says where they are.

    A table whose runs under a profile are not all there appears without the profile. Of OTHER_TABLES, those appear
    whose runs are all there.
    """
    folder = tables[0].results_dir
    views = []
    for table in tables:
        view = build_view(table)
        views.append(view_of_file(Path(table.path), table.results_dir) if table.profile and view.missing else view)
    others = [view_of_file(ROOT / "configs" / f"{name}.yaml", folder) for name in OTHER_TABLES]
    views += [view for view in others if not view.missing]
    write_atomically(folder / "README.md", "\n".join([HEADING, *(markdown(view) for view in views)]))
    write_page(views, folder / "index.html")
    return f"all tables: {folder / 'README.md'}, {folder / 'index.html'}"


def view_of_file(path: Path, results_dir: Path) -> View:
    """The table of a file as it is, without a profile or other options."""
    return build_view(load_table(path, {"results_dir": str(results_dir)}))
