"""A table's YAML file + run records + the paper's numbers -> Markdown, CSV and learning curves. No number is printed that no record holds.

python -m adept.report configs/table12.yaml [--profile NAME] [--FIELD VALUE ...]     as the sweep was started
python -m adept.report --all [--profile NAME]      all tables, results/README.md and the page results/index.html

Writes RESULTS_DIR/tables/<table>.md and .csv, and .png where runs were evaluated more than once, and prints the table.
"""

from __future__ import annotations

import csv
import io
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from adept import results, significance
from adept.config import ROOT, RunConfig, UserError, parse
from adept.sweep import QUANTITY, Run, Table, load_table, parser_of, tables_of
from adept.tables.plots import CurvePanel, save_learning_curves
from adept.tasks import task_of

MISSING = "–"
PUBLISHED = ROOT / "results" / "published"

PAPER_STEPS = 300_000


def offset_statistic(name: str):
    """Mean or variance of |offset| over the training set's tokens (Table 2); of |E| where the method has no offset."""
    return lambda record: (record["offsets"].get("offset") or record["offsets"]["embeddings"])[name] if "offsets" in record else None


QUANTITIES = {
    "samples/s": lambda record: record["timing"].get("test_examples_per_second"),
    "hours": lambda record: PAPER_STEPS / rate / 3600 if (rate := record["timing"].get("steps_per_second")) else None,
    "mean": offset_statistic("mean"),
    "variance": offset_statistic("variance"),
}
"""What a cell can print besides test metrics: record -> number or None. Hours are those of 300,000 steps at the measured rate."""


@dataclass(frozen=True)
class Published:
    """One number of the paper (results/published/tableN.csv)."""

    method: str
    row: str
    column: str
    value: float | None
    std: float | None
    params: str
    note: str


@dataclass
class Cell:
    """What stands at one row and column: the configuration chosen by validation, its records (one a seed), the paper's number."""

    row: str
    column: str
    metric: str  # the test metric or quantity that is printed
    records: list[dict]
    configurations: list[list[dict]] = field(default_factory=list)  # all that were searched, each with its records
    planned: int = 0
    missing: int = 0
    paper: Published | None = None
    values: list[float] = field(default_factory=list)  # one a seed
    config: RunConfig | None = None  # of its first planned run

    @property
    def mean(self) -> float | None:
        return statistics.mean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        return significance.interval(self.values)

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.mean is None or self.paper is None or self.paper.value is None else self.mean - self.paper.value

    @property
    def small(self) -> bool:
        return bool(self.records) and self.metric not in QUANTITIES and any(significance.small(record) for record in self.records)

    def ours(self) -> str:
        """ "mean ± std (n)", ± from two seeds on; a dagger where the test set is small."""
        if self.mean is None:
            return MISSING
        digits = ".3g" if self.metric in QUANTITIES else ".1f"
        spread = f" ± {self.std:{digits}}" if self.std is not None else ""
        return f"{self.mean:{digits}}{spread} ({len(self.values)}){'†' if self.small else ''}"

    def text(self, *, named: bool = False, beside_paper: bool = False) -> str:
        """ "paper | ours" where the table is one of the paper's; named: the metric's name behind it."""
        ours = self.ours() + (f" {self.metric}" if named and self.values else "")
        if not beside_paper:
            return ours
        return f"{number(self.paper.value if self.paper else None)} \\| {ours}"


def number(value: float | None) -> str:
    return MISSING if value is None else f"{value:g}"


@dataclass
class View:
    """A table as it is printed: cells by row and column, the paper's quoted rows, what must be said about it."""

    table: Table
    cells: dict[str, dict[str, Cell]]
    columns: dict[str, str | None]  # column -> the metric it prints, None where its rows print different ones
    quoted: dict[str, dict[str, Published]]  # rows that the paper quotes and nobody ran here
    missing: int
    planned: int
    pending: int  # of the missing: those that wait for other runs' validation
    stopped: int  # --early_stopping ended them; not missing

    @cached_property
    def compared(self) -> bool:
        return any(cell.paper for row in self.cells.values() for cell in row.values())

    @property
    def changed(self) -> dict[str, object]:
        """What the profile and the command line changed for all runs."""
        given = {**self.table.shrunk.get("models", {}), **self.table.shrunk.get("fields", {}), **self.table.overrides}
        places = ("results_dir", "data_dir", "device", "track", "wandb_project", "wandb_group")
        return {name: value for name, value in given.items() if name not in places}

    @cached_property
    def all_cells(self) -> list[Cell]:
        return [cell for row in self.cells.values() for cell in row.values()]

    @cached_property
    def notes(self) -> list[str]:
        found: dict[str, None] = {}
        for cell in self.all_cells:
            found |= dict.fromkeys(f"{record['config']['task']}: {note}" for record in cell.records for note in record["notes"])
        return list(found)

    @cached_property
    def tests(self) -> dict[tuple[str, str], dict]:
        """{(row, column): paired bootstrap of that cell against the cell of ADePT in the same column} where both were tested alike."""
        found = {}
        predictions: dict[str, significance.Predictions] = {}

        def read(record: dict) -> significance.Predictions:
            run_id = record["run_id"]
            if run_id not in predictions:
                predictions[run_id] = significance.Predictions(record, str(self.table.results_dir))
            return predictions[run_id]

        for column in self.columns:
            base = next((row[column] for name, row in self.cells.items() if name.split()[0] == "adept" and column in row), None)
            for row, by_column in self.cells.items():
                cell = by_column.get(column)
                if cell is None or base is None or cell is base or not (cell.records and base.records) or cell.metric in QUANTITIES:
                    continue
                if cell.metric.startswith("pass@") or cell.metric != base.metric:
                    continue
                try:
                    pair = [[read(record) for record in one.records] for one in (base, cell)]
                    found[row, column] = significance.paired_bootstrap(*pair, cell.metric)
                except (UserError, ValueError):  # predictions are not there, or of other rows
                    continue
        return found


def choose(runs: Sequence[Run]) -> tuple[list[dict], list[list[dict]]]:
    """(records of the configuration chosen by validation, records of every configuration that is there).

    A configuration is everything but the seed; they are compared by their mean validation score over the seeds that all of them have.
    Only those whose every such seed is there can be chosen, unless none is complete.
    """
    groups: dict[tuple, dict[int, dict | None]] = {}
    for run in runs:
        if not run.pending:
            # A start differs from seed to seed, as its run does; the cell that it was chosen in does not.
            own = ("seed", "init_from") if run.start else ("seed",)
            key = (run.start, *((name, value) for name, value in asdict(run.config).items() if name not in own))
            groups.setdefault(key, {})[run.config.seed] = run.record()
    if not groups:
        return [], []
    common = set.intersection(*(set(seeds) for seeds in groups.values())) or set().union(*groups.values())
    metric = runs[0].config.select_on

    def score(records: Mapping[int, dict | None]) -> float:
        # Where nothing validates (MBPP), no choice can be made: the first configuration stays.
        there = [record for seed, record in records.items() if record and seed in common] or [
            record for record in records.values() if record
        ]
        return statistics.mean(record["validation"].get(metric, 0) for record in there)

    there = [records for records in groups.values() if any(records.values())]
    whole = [records for records in there if all(records.get(seed) for seed in common)]
    best = max(whole or there, key=score, default={})
    return [record for record in best.values() if record], [[record for record in records.values() if record] for records in there]


def published(name: str) -> list[Published]:
    """The paper's numbers of a table; none where the paper has no such table."""
    path = PUBLISHED / f"{name}.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Published(
                line["method"], line["row"], line["column"], float(line["value"]) if line["value"] else None,
                float(line["std"]) if line["std"] else None, line["params"], line["note"],
            )
            for line in csv.DictReader(file)
        ]  # fmt: skip


def value_of(record: dict, metric: str) -> float | None:
    return QUANTITIES[metric](record) if metric in QUANTITIES else record["test"].get(metric)


def build(table: Table) -> View:
    """Reads the records of all runs and lays them out. Raises UserError for a file that is no record."""
    runs = table.runs()
    by_cell: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        if run.shown:
            for quantity in run.quantities:
                metric = task_of(run.config).reported if quantity == "score" else quantity
                key = table.key(table.rows, run.config, quantity), table.key(table.columns, run.config, quantity), metric
                by_cell.setdefault(key, []).append(run)
    paper = {(entry.row, entry.column): entry for entry in published(table.name) if entry.row}
    cells: dict[str, dict[str, Cell]] = {}
    for (row, column, metric), members in by_cell.items():
        records, configurations = choose(members)
        values = [value for record in records if (value := value_of(record, metric)) is not None]
        missing = sum(not run.done for run in members)
        cells.setdefault(row, {})[column] = Cell(
            row, column, metric, records, configurations, len(members), missing, paper.get((row, column)), values, members[0].config
        )
    columns: dict[str, str | None] = {}
    for by_column in cells.values():
        for column, cell in by_column.items():
            columns[column] = cell.metric if columns.get(column, cell.metric) == cell.metric else None
    for name, tasks in table.means.items():
        for row, by_column in cells.items():
            if parts := [by_column[task] for task in tasks if task in by_column]:
                by_column[name] = mean_cell(row, name, parts, len(tasks), paper.get((row, name)))
                columns[name] = "mean"
    quoted: dict[str, dict[str, Published]] = {}
    for entry in published(table.name):
        if entry.row not in cells:
            quoted.setdefault(entry.method, {})[entry.column] = entry
        elif entry.column not in cells[entry.row]:  # the paper has a task or method there that was not run (other columns of Table 15)
            cells[entry.row][entry.column] = Cell(entry.row, entry.column, "", [], paper=entry)
            columns.setdefault(entry.column, "")
    missing, pending, stopped = sum(not run.done for run in runs), sum(run.pending for run in runs), sum(run.stopped for run in runs)
    return View(table, cells, columns, quoted, missing, len(runs), pending, stopped)


def mean_cell(row: str, name: str, parts: list[Cell], tasks: int, paper: Published | None) -> Cell:
    """The mean over tasks, one value a seed; empty unless every task and as many seeds of each are there."""
    seeds = {len(part.values) for part in parts}
    whole = len(parts) == tasks and len(seeds) == 1 and 0 not in seeds
    values = [statistics.mean(scores) for scores in zip(*(part.values for part in parts), strict=True)] if whole else []
    return Cell(row, name, "mean", [], [], 0, 0, paper, values)


# Markdown and CSV -------------------------------------------------------------------------------------------------------


def markdown(view: View) -> str:
    """The table with its heading, what was changed, notes of its records, differences that are no noise, and the number of missing runs."""
    table = view.table
    heading = [
        f"{escape(column)} ({metric})" if metric and metric not in column else escape(column) for column, metric in view.columns.items()
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
        texts = [f"{number(by_column[column].value)} \\|" if column in by_column else MISSING for column in view.columns]
        if any(column in by_column for column in view.columns):
            lines.append(f"| *{escape(method)}* | {next(iter(by_column.values())).params} | " + " | ".join(texts) + " |")
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
            chance[task] = max(chance.get(task, 0), significance.noise(record))
    if chance:
        told = ", ".join(f"{points:.0f} ({task})" for task, points in chance.items())
        lines.append(
            f"† Fewer than {significance.SMALL_TEST} test rows: two single runs must differ by so many points to be told apart: {told}."
        )
    told = [
        f"{row} {column} {-test['difference']:+.1f} (95% {-test['high']:+.1f} to {-test['low']:+.1f}, p = {test['p']:.2g})"
        for (row, column), test in view.tests.items()
    ]
    if told:
        lines.append("Against adept on the same test rows, by paired bootstrap: " + "; ".join(told) + ".")
    return lines


def agreement(view: View) -> list[str]:
    compared = [record["scoring_agreement"] for cell in view.all_cells for record in cell.records if "scoring_agreement" in record]
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
        low, high = cell.interval or ("", "")
        paper = cell.paper
        test = view.tests.get((cell.row, cell.column))
        published = (paper.value, paper.std) if paper else (None, None)
        p = test["p"] if test else None
        numbers = (*published, cell.mean, cell.std, len(cell.values), low, high, cell.difference, p)
        shown = ["" if value is None or value == "" else f"{value:.6g}" for value in numbers]
        ids = " ".join(record["run_id"] for record in cell.records)
        writer.writerow([cell.row, cell.column, cell.metric, *shown, int(cell.small), cell.missing, ids])
    return out.getvalue()


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


def publish(table: Table) -> str:
    """Writes the table's files; returns what is printed."""
    view = build(table)
    text, folder = markdown(view), table.results_dir / "tables"
    results.write_atomically(folder / f"{table.name}.md", text)
    results.write_atomically(folder / f"{table.name}.csv", table_csv(view))
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
    from adept.tables.page import write_page

    views = []
    for table in tables:
        view = build(table)
        unfinished = table.profile and view.missing
        views.append(build(load_table(Path(table.path), {"results_dir": str(table.results_dir)})) if unfinished else view)
    others = (build(load_table(ROOT / "configs" / f"{name}.yaml", {"results_dir": str(tables[0].results_dir)})) for name in OTHERS)
    views += [view for view in others if not view.missing]
    folder = tables[0].results_dir
    heading = (
        "# Results\n\nEvery table of the paper with our runs beside it, made by `bash scripts/all_tables.sh`. As a page: index.html.\n"
    )
    results.write_atomically(folder / "README.md", "\n".join([heading, *(markdown(view) for view in views)]))
    write_page(views, folder / "index.html")
    return f"all tables: {folder / 'README.md'}, {folder / 'index.html'}"


def main(arguments: list[str]) -> int:
    try:
        overrides, rest = parse(parser_of(__doc__), arguments)
        tables = tables_of(rest, overrides)
        print(publish_all(tables) if "all" in rest else publish(tables[0]))
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
