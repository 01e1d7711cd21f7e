"""A table as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from adept.tables.cell import MISSING, Cell, number_text
from adept.tables.report import View
from adept.tables.search import configuration_text, configurations, searched_cells, searched_options
from adept.tables.significance import SMALL_TEST, p_value_text
from adept.tables.table import QUANTITY

MAX_SEARCH_LINES = 40
"""Searched configurations up to which they are printed below the table."""

# Markdown -------------------------------------------------------------------------------------------------------------


def markdown(view: View) -> str:
    """The table with its heading, what was changed for all runs, and the lines below it."""
    table = view.table
    lines = [f"**{escape(table.title)}**", ""]
    lines += [line for text in heading(view) for line in (text, "")]
    lines += [*rows(view), "", *legend(view)]
    lines += [table.note] if table.note else []
    lines += remarks(view)
    lines += measured_on(view) + agreement(view)
    lines += [f"Note: {escape(note)}." for note in view.notes]
    lines += incomplete(view)
    return "\n".join(lines) + "\n"


def heading(view: View) -> list[str]:
    """What is not as the table's file has it: a part, a profile, other options, and what a model has of its own."""
    table, lines = view.table, []
    if table.only:
        lines.append(
            f"A part of the table: {assignments({name: ' or '.join(map(str, v)) for name, v in table.only.items()})}."
        )
    if table.profile or view.changed:
        profile = f"Profile {table.profile}. " if table.profile else ""
        changed = f"Changed for all runs: {assignments(view.changed)}." if view.changed else ""
        lines.append(f"{profile}{changed}".strip())
    for model, settings in view.model_settings.items():
        lines.append(f"configs/base.yaml sets for {escape(model)}: {assignments(settings)}.")
    return lines


def assignments(options: Mapping[str, object]) -> str:
    return ", ".join(f"{name} = {escape(str(value))}" for name, value in options.items())


def rows(view: View) -> list[str]:
    """The lines of the table itself: headings, our rows, and those that the paper quotes."""
    headings = [
        f"{escape(column)} ({metric})" if metric and metric not in column else escape(column)
        for column, metric in view.columns.items()
    ]
    lines = []
    for row, by_column in view.cells.items():
        texts = [
            by_column[column].text(named=metric is None, beside_paper=view.compared) if column in by_column else MISSING
            for column, metric in view.columns.items()
        ]
        lines.append([escape(row), parameter_counts(list(by_column.values())), *texts])
    for method, by_column in view.quoted.items():
        if any(column in by_column for column in view.columns):
            texts = [
                f"{number_text(by_column[column].value)} \\|" if column in by_column else MISSING
                for column in view.columns
            ]
            lines.append([f"*{escape(method)}*", next(iter(by_column.values())).params, *texts])
    return table_lines([row_axis(view), "trained parameters", *headings], lines)


def row_axis(view: View) -> str:
    """The heading of the rows' names."""
    return " ".join(name for name in view.table.rows if name != QUANTITY)


def table_lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table of texts that are escaped already."""
    lines = [f"| {' | '.join(texts)} |" for texts in (head, *rows)]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]


def parameter_counts(cells: list[Cell]) -> str:
    """The numbers of trained parameters of a row's runs: "76,905", "76,041 / 76,905"."""
    counts = sorted({record["trainable_params"] for cell in cells for record in cell.records})
    return " / ".join(f"{count:,}" for count in counts) or MISSING


def legend(view: View) -> list[str]:
    """What a cell shows, how sure small test sets and differences from the baseline are, and what was searched."""
    if view.compared:
        lines = [
            "Each cell: the paper \\| ours. Ours is the test score in percent of what was best on validation: "
            "mean ± std (number of seeds)."
        ]
    else:
        lines = ["Test score in percent of the checkpoint that was best on validation: mean ± std (number of seeds)."]
    if any(cell.small for cell in view.all_cells):
        lines.append(f"† Fewer than {SMALL_TEST} test rows.{small_test_intervals(view)}")
    return lines + tests(view) + searches(view)


def small_test_intervals(view: View) -> str:
    """The intervals of the scores on small test sets."""
    texts = [
        f"{cell.row} {cell.column} {low:.1f} to {high:.1f}"
        for cell in view.all_cells
        if cell.small
        for low, high in [view.intervals.get((cell.row, cell.column), (None, None))]
        if low is not None
    ]
    return f" 95% intervals of the scores, by bootstrap: {escape('; '.join(texts))}." if texts else ""


def grid(view: View, texts: Mapping[tuple[str, str], str]) -> list[str]:
    """{(row, column): text} as a table of the rows and columns that have one, with an empty line on each side."""
    rows = [row for row in view.cells if any((row, column) in texts for column in view.columns)]
    columns = [column for column in view.columns if any((row, column) in texts for row in rows)]
    lines = [[escape(row), *(escape(texts.get((row, column), "")) for column in columns)] for row in rows]
    return ["", *table_lines([row_axis(view), *map(escape, columns)], lines), ""]


def tests(view: View) -> list[str]:
    """How sure the differences from the baseline are: the table's one statement about noise between cells."""
    lines = []
    if view.tests:
        holm = f", p after Holm's correction for {len(view.tests)} comparisons" if len(view.tests) > 1 else ""
        lines.append(
            f"Against {escape(view.baseline_name)} on the same test rows, by paired bootstrap over {resampled(view)}"
            f"{holm}:"
        )
        lines += grid(
            view,
            {
                key: f"{0 - test['difference']:+.1f} (95% {0 - test['high']:+.1f} to {0 - test['low']:+.1f}, "
                f"{p_value_text(test['p'])})"
                for key, test in view.tests.items()
            },
        )
    if view.ambiguous:
        lines.append(
            f"compare_with ({assignments(view.table.compare_with)}) fits several cells; what it fits is not compared "
            "until the table's file names one."
        )
    return lines


def searches(view: View) -> list[str]:
    """Which configuration validation chose in each cell, the searches behind it, and the means without their seed."""
    cells = searched_cells(view)
    if not cells:
        return []
    fresh = any(cell.fresh_mean is not None for cell in cells)
    seeds = "; in brackets the mean over the other seeds, since the searched one was chosen for its score"
    lines = [f"Chosen by validation{seeds if fresh else ''}:"]
    lines += grid(
        view,
        {
            (cell.row, cell.column): configuration_text(cell.records[0]["config"], searched_options(view, [cell]))
            + ("" if cell.fresh_mean is None else f" ({cell.fresh_mean:.1f})")
            for cell in cells
        },
    )
    tried = [(cell, one) for cell in cells for one in configurations([cell])]
    if len(tried) > MAX_SEARCH_LINES:
        return [*lines, f"The {len(tried)} configurations that were searched are in the file that ends in .search.csv."]
    searched = []
    for cell, one in tried:
        scores = [MISSING if score is None else f"{score:.1f}" for score in (one.validation, one.test)]
        text = configuration_text(one.config, searched_options(view, [cell]))
        name = escape(f"{cell.row} {cell.column}")
        searched.append([name, escape(text), *scores, "chosen" if one.chosen else ""])
    return [*lines, *table_lines(["searched", "configuration", "validation", "test", ""], searched), ""]


def remarks(view: View) -> list[str]:
    """What the table's file says of rows and columns that are printed."""
    printed = (*view.cells, *view.quoted, *view.columns)
    found = [f"* {escape(name)}: {escape(text)}" for name, text in view.table.remarks.items() if name in printed]
    return ["", *found, ""] if found else []


def resampled(view: View) -> str:
    """What the tests take for random: rows, and seeds where a cell has several."""
    counts = {len(cell.tested) for cell in view.all_cells if (cell.row, cell.column) in view.tests}
    counts |= {len(baseline.tested) for cell in view.all_cells for baseline in view.baselines(cell)}
    if max(counts) == 1:
        return "rows (one seed each, so nothing is said of other seeds)"
    return "rows and seeds" + (" (of cells of one seed: rows alone)" if 1 in counts else "")


def measured_on(view: View) -> list[str]:
    """The devices that times and memory were measured on, and which rows on which."""
    if len(view.devices) < 2:
        return [f"Times and memory: {escape(device or 'an unknown device')}." for device in view.devices]
    rows = "; ".join(f"{device or 'unknown device'}: {', '.join(names)}" for device, names in view.devices.items())
    return [f"Times and memory compare on one device only, and a cell with runs of several has none. {escape(rows)}."]


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
    "p_against_baseline", "test_low", "test_high", "unsearched_seeds", "small_test", "missing", "run_ids",
)  # fmt: skip
"""low, high: the interval over seeds; test_low, test_high: over test rows and seeds. difference: ours minus the paper's
number. p_against_baseline: of the paired test, after Holm's correction. unsearched_seeds: the mean without the searched
seed.
"""


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
        interval = view.intervals.get((cell.row, cell.column), (None, None))
        numbers = (
            paper, paper_std, cell.mean, cell.std, len(cell.values), low, high, cell.difference, p_value,
            *interval, cell.fresh_mean,
        )  # fmt: skip
        texts = ["" if value is None else f"{value:.6g}" for value in numbers]
        ids = " ".join(record["run_id"] for record in cell.records)
        writer.writerow([cell.row, cell.column, cell.metric, *texts, int(cell.small), cell.missing, ids])
    return out.getvalue()
