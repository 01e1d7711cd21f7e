"""A table as Markdown and as CSV."""

from __future__ import annotations

import csv
import io

from adept.tables.report import MISSING, Cell, View, number_text
from adept.tables.significance import SMALL_TEST, chance_difference
from adept.tables.table import QUANTITY

# Markdown -------------------------------------------------------------------------------------------------------------


def markdown(view: View) -> str:
    """The table with its heading, what was changed for all runs, and the lines below it."""
    table = view.table
    lines = [f"**{escape(table.title)}**", ""]
    if table.profile or view.changed:
        profile = f"Profile {table.profile}. " if table.profile else ""
        changes = ", ".join(f"{name} = {escape(str(value))}" for name, value in view.changed.items())
        lines += [f"{profile}Changed for all runs: {changes}.", ""]
    lines += [*rows(view), "", *legend(view)]
    lines += [table.note] if table.note else []
    lines += agreement(view)
    lines += [f"Note: {escape(note)}." for note in view.notes]
    lines += incomplete(view)
    return "\n".join(lines) + "\n"


def rows(view: View) -> list[str]:
    """The lines of the table itself: headings, our rows, and those that the paper quotes."""
    headings = [
        f"{escape(column)} ({metric})" if metric and metric not in column else escape(column)
        for column, metric in view.columns.items()
    ]
    axis = " ".join(name for name in view.table.rows if name != QUANTITY)
    lines = [table_row([axis, "trained parameters", *headings]), "|" + "---|" * (len(headings) + 2)]
    for row, by_column in view.cells.items():
        texts = [
            by_column[column].text(named=metric is None, beside_paper=view.compared) if column in by_column else MISSING
            for column, metric in view.columns.items()
        ]
        lines.append(table_row([escape(row), parameter_counts(list(by_column.values())), *texts]))
    for method, by_column in view.quoted.items():
        if any(column in by_column for column in view.columns):
            texts = [
                f"{number_text(by_column[column].value)} \\|" if column in by_column else MISSING
                for column in view.columns
            ]
            lines.append(table_row([f"*{escape(method)}*", next(iter(by_column.values())).params, *texts]))
    return lines


def table_row(texts: list[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def parameter_counts(cells: list[Cell]) -> str:
    """The numbers of trained parameters of a row's runs: "76,905", "76,041 / 76,905"."""
    counts = sorted({record["trainable_params"] for cell in cells for record in cell.records})
    return " / ".join(f"{count:,}" for count in counts) or MISSING


def legend(view: View) -> list[str]:
    """What a cell shows, how much chance does on small test sets, and how sure the differences from ADePT are."""
    if view.compared:
        lines = [
            "Each cell: the paper \\| ours. Ours is the test score in percent of what was best on validation: "
            "mean ± std (number of seeds)."
        ]
    else:
        lines = ["Test score in percent of the checkpoint that was best on validation: mean ± std (number of seeds)."]
    by_chance: dict[str, float] = {}
    for cell in view.all_cells:
        for record in cell.records if cell.small else []:
            task = record["config"]["task"]
            by_chance[task] = max(by_chance.get(task, 0), chance_difference(record))
    if by_chance:
        differences = ", ".join(f"{points:.0f} ({task})" for task, points in by_chance.items())
        lines.append(
            f"† Fewer than {SMALL_TEST} test rows: two single runs must differ by so many points to be told apart: "
            f"{differences}."
        )
    tests = [
        f"{row} {column} {-test['difference']:+.1f} "
        f"(95% {-test['high']:+.1f} to {-test['low']:+.1f}, p = {test['p']:.2g})"
        for (row, column), test in view.tests.items()
    ]
    if tests:
        lines.append("Against adept on the same test rows, by paired bootstrap: " + "; ".join(tests) + ".")
    return lines


def agreement(view: View) -> list[str]:
    """How often generation and label likelihood agree, where runs have compared them (--compare_scoring)."""
    compared = [
        record["scoring_agreement"]
        for cell in view.all_cells
        for record in cell.records
        if "scoring_agreement" in record
    ]
    if not compared:
        return []
    count = sum(entry["rows"] for entry in compared)
    same = sum(entry["rows"] * entry["agreement"] for entry in compared)
    shares = sorted(entry["agreement"] for entry in compared)
    return [
        f"Greedy generation and label likelihood predict the same on {same / count:.1f}% of {count:,} test rows "
        f"({shares[0]:.1f}% to {shares[-1]:.1f}% a run)."
    ]


def incomplete(view: View) -> list[str]:
    """How many runs were stopped early, and how many are missing."""
    lines = []
    if view.stopped:
        lines.append(
            f"{view.stopped} configurations were stopped early, at 1/9 or 1/3 of their steps, where their validation "
            "score was not in the best third of their cell; validation chose among the others."
        )
    if view.missing:
        pending = f", {view.pending} of them until validation has chosen" if view.pending else ""
        lines.append(f"{view.missing} of {view.planned} runs are missing ({MISSING}){pending}.")
    return lines


def escape(text: str) -> str:
    """The text of a record or a file in Markdown: it ends no table cell and holds no HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|").replace("\n", " ")


# CSV ------------------------------------------------------------------------------------------------------------------

CSV_COLUMNS = (
    "row", "column", "metric", "paper", "paper_std", "ours", "ours_std", "seeds", "low", "high", "difference",
    "p_against_adept", "small_test", "missing", "run_ids",
)  # fmt: skip
"""low, high: the interval over seeds. difference: ours minus the paper's number."""


def table_csv(view: View) -> str:
    """One line a cell, numbers with six digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for cell in view.all_cells:
        low, high = cell.seed_interval or (None, None)
        paper, paper_std = (cell.paper.value, cell.paper.std) if cell.paper else (None, None)
        test = view.tests.get((cell.row, cell.column))
        p_value = test["p"] if test else None
        numbers = (paper, paper_std, cell.mean, cell.std, len(cell.values), low, high, cell.difference, p_value)
        texts = ["" if value is None else f"{value:.6g}" for value in numbers]
        ids = " ".join(record["run_id"] for record in cell.records)
        writer.writerow([cell.row, cell.column, cell.metric, *texts, int(cell.small), cell.missing, ids])
    return out.getvalue()
