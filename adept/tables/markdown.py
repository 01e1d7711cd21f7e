"""A table as Markdown and as CSV."""

from __future__ import annotations

import csv
import io

from adept.tables.report import MISSING, View, number
from adept.tables.significance import SMALL_TEST, chance_difference
from adept.tables.table import QUANTITY


def markdown(view: View) -> str:
    """The table with its heading, what was changed, notes of its records, differences that are no noise, and the number
    of missing runs.
    """
    table = view.table
    heading = [
        f"{escape(column)} ({metric})" if metric and metric not in column else escape(column)
        for column, metric in view.columns.items()
    ]
    lines = [f"**{escape(table.title)}**", ""]
    if table.profile or view.changed:
        profile = f"Profile {table.profile}. " if table.profile else ""
        changes = ", ".join(f"{name} = {escape(str(value))}" for name, value in view.changed.items())
        lines += [f"{profile}Changed for all runs: {changes}.", ""]
    axis = " ".join(name for name in table.rows if name != QUANTITY)
    lines += [f"| {axis} | trained parameters | " + " | ".join(heading) + " |", "|" + "---|" * (len(view.columns) + 2)]
    for row, by_column in view.cells.items():
        counts = sorted({record["trainable_params"] for cell in by_column.values() for record in cell.records})
        counted = " / ".join(f"{count:,}" for count in counts) or MISSING
        texts = [
            by_column[column].text(named=metric is None, beside_paper=view.compared) if column in by_column else MISSING
            for column, metric in view.columns.items()
        ]
        lines.append(f"| {escape(row)} | {counted} | " + " | ".join(texts) + " |")
    for method, by_column in view.quoted.items():
        texts = [
            f"{number(by_column[column].value)} \\|" if column in by_column else MISSING for column in view.columns
        ]
        if any(column in by_column for column in view.columns):
            lines.append(
                f"| *{escape(method)}* | {next(iter(by_column.values())).params} | " + " | ".join(texts) + " |"
            )
    lines += ["", *legend(view)]
    lines += [table.note] if table.note else []
    lines += agreement(view)
    lines += [f"Note: {escape(note)}." for note in view.notes]
    if view.stopped:
        lines.append(
            f"{view.stopped} configurations were stopped early, at 1/9 or 1/3 of their steps, where their validation score was not in the "
            "best third of their cell; validation chose among the others."
        )
    if view.missing:
        waiting = f", {view.pending} of them until validation has chosen" if view.pending else ""
        lines.append(f"{view.missing} of {view.planned} runs are missing ({MISSING}){waiting}.")
    return "\n".join(lines) + "\n"


def legend(view: View) -> list[str]:
    """What a cell shows, how much chance does on small test sets, and how sure the differences from ADePT are."""
    lines = ["Test score in percent of the checkpoint that was best on validation: mean ± std (number of seeds)."]
    if view.compared:
        lines = [
            "Each cell: the paper \\| ours. Ours is the test score in percent of what was best on validation: mean ± std (number of seeds)."
        ]
    chance: dict[str, float] = {}
    for cell in view.all_cells:
        for record in cell.records if cell.small else []:
            task = record["config"]["task"]
            chance[task] = max(chance.get(task, 0), chance_difference(record))
    if chance:
        told = ", ".join(f"{points:.0f} ({task})" for task, points in chance.items())
        lines.append(
            f"† Fewer than {SMALL_TEST} test rows: two single runs must differ by so many points to be told apart: {told}."
        )
    told = [
        f"{row} {column} {-test['difference']:+.1f} (95% {-test['high']:+.1f} to {-test['low']:+.1f}, p = {test['p']:.2g})"
        for (row, column), test in view.tests.items()
    ]
    if told:
        lines.append("Against adept on the same test rows, by paired bootstrap: " + "; ".join(told) + ".")
    return lines


def agreement(view: View) -> list[str]:
    compared = [
        record["scoring_agreement"]
        for cell in view.all_cells
        for record in cell.records
        if "scoring_agreement" in record
    ]
    if not compared:
        return []
    rows, same = sum(entry["rows"] for entry in compared), sum(entry["rows"] * entry["agreement"] for entry in compared)
    shares = sorted(entry["agreement"] for entry in compared)
    return [
        f"Greedy generation and label likelihood predict the same on {same / rows:.1f}% of {rows:,} test rows "
        f"({shares[0]:.1f}% to {shares[-1]:.1f}% a run)."
    ]


def escape(text: str) -> str:
    """Text of a record or a file as Markdown shows it: no table cell, no HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|").replace("\n", " ")


CSV_COLUMNS = ("row", "column", "metric", "paper", "paper_std", "ours", "ours_std", "seeds", "low", "high", "difference", "p_against_adept",
               "small_test", "missing", "run_ids")  # fmt: skip


def table_csv(view: View) -> str:
    """One line a cell, numbers in full."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for cell in view.all_cells:
        low, high = cell.seed_interval or ("", "")
        paper = cell.paper
        test = view.tests.get((cell.row, cell.column))
        published = (paper.value, paper.std) if paper else (None, None)
        p = test["p"] if test else None
        numbers = (*published, cell.mean, cell.std, len(cell.values), low, high, cell.difference, p)
        shown = ["" if value is None or value == "" else f"{value:.6g}" for value in numbers]
        ids = " ".join(record["run_id"] for record in cell.records)
        writer.writerow([cell.row, cell.column, cell.metric, *shown, int(cell.small), cell.missing, ids])
    return out.getvalue()
