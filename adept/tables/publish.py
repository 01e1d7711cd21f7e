"""Writes a table's files, and results/README.md and the page of the claims and all tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adept.base.atomic_files import write_atomically
from adept.base.marked_blocks import write_block
from adept.base.paths import ROOT
from adept.tables.cell import MISSING, QUANTITIES
from adept.tables.claim_text import claims_markdown
from adept.tables.claims import evaluate_claims
from adept.tables.markdown import markdown, table_csv
from adept.tables.page import words_of, write_page
from adept.tables.plots import Curve, CurvePanel, save_learning_curves
from adept.tables.report import View, build_view
from adept.tables.search import search_csv, searched_cells
from adept.tables.status import status_table
from adept.tables.table import Table
from adept.tables.table_file import load_table

OTHER_TABLES = ("study", "methods", "quickstart", "first_results", "scoring")
"""Tables that the paper does not have, before the paper's."""

HEADING = """\
# Results

What the paper claims, and every table of it with our runs beside it, made by `bash scripts/all_tables.sh`. As a page:
index.html.
"""


def publish_table(table: Table, *, page: bool = False) -> str:
    """Writes the table's files in RESULTS_DIR/tables: .md, .csv, .search.csv where validation had a choice, .png where
    runs were evaluated more than once, .html where a page is asked for.

    Returns the table in Markdown, with the places of these files below it.
    """
    view = build_view(table)
    text, folder = markdown(view), table.results_dir / "tables"
    file = folder / table.file_name
    write_atomically(Path(f"{file}.md"), text)
    write_atomically(Path(f"{file}.csv"), table_csv(view))
    lines = [f"table:   {file}.md, .csv"]
    if searched_cells(view):
        write_atomically(Path(f"{file}.search.csv"), search_csv(view))
        lines[0] += ", .search.csv"
    scored = [cell for cell in view.all_cells if cell.metric not in QUANTITIES]
    has_curves = any(len(record["history"]) > 1 for cell in scored for record in cell.records)
    if has_curves and (panels := curve_panels(view)):
        save_learning_curves(Path(f"{file}.png"), panels)
        lines.append(f"curves:  {file}.png")
    if page:
        write_page([view], Path(f"{file}.html"), words_of(view))
        lines.append(f"page:    {file}.html")
    return "\n".join(["", text, *lines, f"records: {folder.parent / 'runs'}/"])


def curve_panels(view: View) -> list[CurvePanel]:
    """The chosen runs' curves over steps: for each column of scores a panel of validation scores and one of training
    losses, with a colour and marker for each row and a line style for each seed.
    """
    panels = []
    for column, metric in view.columns.items():
        if metric == "mean" or metric in QUANTITIES:
            continue
        scores, losses = [], []
        for series, (row, by_column) in enumerate(view.cells.items()):
            cell = by_column.get(column)
            for seed, record in enumerate(cell.records if cell else []):
                several = len(cell.records) > 1
                of_run = (series, row, seed, f"seed {record['config'].get('seed', MISSING)}" if several else "")
                history = record["history"]
                points = [(entry["step"], entry["validation"].get(cell.metric)) for entry in history]
                scores.append(Curve(*of_run, [point for point in points if point[1] is not None]))
                points = [(entry["step"], entry.get("train_loss")) for entry in history]
                losses.append(Curve(*of_run, [point for point in points if point[1] is not None]))
        if any(curve.points for curve in scores):
            panels.append(CurvePanel(column, f"validation {metric or 'score'} (%)", scores))
        if any(len(curve.points) > 1 for curve in losses):
            panels.append(CurvePanel(column, "training loss", [curve for curve in losses if len(curve.points) > 1]))
    return panels


def publish_all(tables: Sequence[Table]) -> str:
    """Writes the paper's claims and the tables into RESULTS_DIR/README.md, between its marks, and the page
    RESULTS_DIR/index.html.

    Returns the line that says where they are. Tables whose runs the command line changed get files of their own. Of
    several tables of one file, under different profiles, the first appears whose runs are all there, and where none is,
    the table without a profile. Of OTHER_TABLES, those appear that have some run.
    """
    folder = tables[0].results_dir
    by_file: dict[str, list[Table]] = {}
    for table in tables:
        by_file.setdefault(table.path, []).append(table)
    others = [view_of_file(ROOT / "configs" / f"{name}.yaml", folder) for name in OTHER_TABLES]
    views = [view for view in others if any(cell.records for cell in view.all_cells)]
    views += [complete_view(alternatives) for alternatives in by_file.values()]
    claims = evaluate_claims(folder)
    document, page = folder / f"README{tables[0].variant}.md", folder / f"index{tables[0].variant}.html"
    write_block(document, "claims", claims_markdown(claims), HEADING)
    write_block(document, "status", status_table(views), HEADING)
    write_block(document, "all", "\n".join(markdown(view) for view in views), HEADING)
    write_page(views, page, claims=claims)
    return f"all tables: {document}, {page}"


def complete_view(alternatives: Sequence[Table]) -> View:
    """The first of a file's tables whose runs are all there, or the one that has no profile; else the file's own."""
    for table in alternatives:
        view = build_view(table)
        if not (table.profile and view.missing):
            return view
    return view_of_file(Path(table.path), table.results_dir)


def view_of_file(path: Path, results_dir: Path) -> View:
    """The table of a file as it is, without a profile or other options."""
    return build_view(load_table(path, {"results_dir": str(results_dir)}))
