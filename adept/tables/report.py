"""Run records and the paper's numbers -> the cells of a table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from adept.config.run import RunConfig, task_of
from adept.tables.published import Published, published
from adept.tables.significance import PairedTests, is_small_test, seed_interval
from adept.tables.table import PlannedRun, Table

MISSING = "–"
"""What stands for a number that is not there."""

PAPER_STEPS = 300_000
"""Of the runs whose hours Table 9 compares."""


def offset_statistic(name: str) -> Callable[[dict], float | None]:
    """Mean or variance of |offset| over the training set's tokens (Table 2); of |E| where the method has no offset."""

    def read(record: dict) -> float | None:
        if "offsets" not in record:
            return None
        return (record["offsets"].get("offset") or record["offsets"]["embeddings"])[name]

    return read


def training_hours(record: dict) -> float | None:
    """Hours of PAPER_STEPS at the run's own speed; None where it shared its steps with other runs."""
    rate = record["timing"].get("steps_per_second")
    alone = record.get("provenance", {}).get("stacked", 1) == 1
    return PAPER_STEPS / rate / 3600 if rate and alone else None


QUANTITIES: dict[str, Callable[[dict], float | None]] = {
    "samples/s": lambda record: record["timing"].get("test_examples_per_second"),
    "hours": training_hours,
    "mean": offset_statistic("mean"),
    "variance": offset_statistic("variance"),
}
"""What a cell can print besides test metrics: record -> number, or None where the record does not hold it.

Hours are those of 300,000 steps at the measured rate.
"""


@dataclass
class Cell:
    """One row and column of a table: the configuration that validation chose there, and the paper's number."""

    row: str
    column: str
    metric: str
    """The test metric or quantity that is printed."""
    records: list[dict]
    """Of the chosen configuration, one a seed."""
    configurations: list[list[dict]] = field(default_factory=list)
    """The records of every configuration that was searched."""
    planned: int = 0
    """The number of runs."""
    missing: int = 0
    """Of these, the runs that are not done."""
    paper: Published | None = None
    values: list[float] = field(default_factory=list)
    """Of the metric, one a seed."""
    config: RunConfig | None = None
    """Of the first planned run."""

    @property
    def mean(self) -> float | None:
        return statistics.mean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """The sample standard deviation over seeds; None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def seed_interval(self) -> tuple[float, float] | None:
        """The 95% interval of the mean over seeds; None for fewer than two."""
        return seed_interval(self.values)

    @property
    def difference(self) -> float | None:
        """Our mean minus the paper's number; None where either is not there."""
        if self.mean is None or self.paper is None or self.paper.value is None:
            return None
        return self.mean - self.paper.value

    @property
    def small(self) -> bool:
        """Whether it prints a test score of so few rows that chance alone makes large differences."""
        return self.metric not in QUANTITIES and any(is_small_test(record) for record in self.records)

    def ours(self) -> str:
        """Our number as "mean ± std (n)", ± from two seeds on, and a dagger where the test set is small."""
        if self.mean is None:
            return MISSING
        digits = ".3g" if self.metric in QUANTITIES else ".1f"
        spread = f" ± {self.std:{digits}}" if self.std is not None else ""
        return f"{self.mean:{digits}}{spread} ({len(self.values)}){'†' if self.small else ''}"

    def text(self, *, named: bool = False, beside_paper: bool = False) -> str:
        """The cell in Markdown: ours(), or "paper | ours". named: the metric's name follows."""
        ours = self.ours() + (f" {self.metric}" if named and self.values else "")
        if not beside_paper:
            return ours
        return f"{number_text(self.paper.value if self.paper else None)} \\| {ours}"


def number_text(value: float | None) -> str:
    """The number without trailing zeros, or MISSING."""
    return MISSING if value is None else f"{value:g}"


@dataclass
class View:
    """A table as it is printed: its cells, the rows that the paper quotes, and what is missing."""

    table: Table
    cells: dict[str, dict[str, Cell]]
    """{row: {column: cell}}."""
    columns: dict[str, str | None]
    """{column: the metric that it prints}; None where its rows print different metrics."""
    quoted: dict[str, dict[str, Published]]
    """{method: {column: number}} of the paper's rows that no run of ours belongs to."""
    planned: int
    """The number of runs."""
    missing: int
    """Of these, the runs that are neither finished nor stopped early."""
    pending: int
    """Of the missing, those that wait until validation has chosen."""
    stopped: int
    """Runs that were stopped early."""

    @cached_property
    def all_cells(self) -> list[Cell]:
        return [cell for row in self.cells.values() for cell in row.values()]

    @cached_property
    def compared(self) -> bool:
        """Whether the paper has a number in some cell."""
        return any(cell.paper for cell in self.all_cells)

    @property
    def changed(self) -> dict[str, object]:
        """{option: value} of what the profile and the command line changed for all runs."""
        options = {**self.table.profile_models, **self.table.common_overrides}
        unprinted = ("results_dir", "data_dir", "device", "track", "wandb_project", "wandb_group")
        return {name: value for name, value in options.items() if name not in unprinted}

    @cached_property
    def notes(self) -> list[str]:
        """The notes of the printed records, with their tasks, each once."""
        records = [record for cell in self.all_cells for record in cell.records]
        return list(
            dict.fromkeys(f"{record['config']['task']}: {note}" for record in records for note in record["notes"])
        )

    @cached_property
    def tests(self) -> dict[tuple[str, str], dict]:
        """{(row, column): paired bootstrap of ADePT's cell in that column against this one}.

        Cells that cannot be compared on the same test rows are left out.
        """
        paired, tests = PairedTests(str(self.table.results_dir)), {}
        for column in self.columns:
            in_column = {row: by_column[column] for row, by_column in self.cells.items() if column in by_column}
            adept = next((cell for row, cell in in_column.items() if row.split()[0] == "adept"), None)
            for row, cell in in_column.items():
                if adept is None or cell is adept or cell.metric != adept.metric or cell.metric in QUANTITIES:
                    continue
                test = paired.compare(adept.records, cell.records, cell.metric)
                if test is not None:
                    tests[row, column] = test
        return tests


# Which configuration a cell prints ------------------------------------------------------------------------------------


def select_configuration(runs: Sequence[PlannedRun]) -> tuple[list[dict], list[list[dict]]]:
    """(records of the configuration that validation chose, records of every configuration that has any).

    A configuration is everything but the seed. Configurations are compared by their mean validation score over the
    seeds that all of them have. One whose records of these seeds are incomplete is chosen only where all are.
    """
    configurations: dict[tuple, dict[int, dict | None]] = {}
    for run in runs:
        if not run.pending:
            configurations.setdefault(configuration_key(run), {})[run.config.seed] = run.record
    if not configurations:
        return [], []
    seeds = [set(records) for records in configurations.values()]
    common = set.intersection(*seeds) or set.union(*seeds)
    metric = runs[0].config.select_on
    found = [records for records in configurations.values() if any(records.values())]
    complete = [records for records in found if all(records.get(seed) for seed in common)]
    best = max(complete or found, key=lambda records: mean_validation(records, common, metric), default={})
    return finished(best), [finished(records) for records in found]


def configuration_key(run: PlannedRun) -> tuple:
    """What the runs of one configuration have in common.

    A run that starts from another has a start of its own for each seed, but one cell that these starts come from.
    """
    of_seed = ("seed", "init_from") if run.start else ("seed",)
    return (run.start, *((name, value) for name, value in run.config.flat().items() if name not in of_seed))


def finished(records: Mapping[int, dict | None]) -> list[dict]:
    return [record for record in records.values() if record]


def mean_validation(records: Mapping[int, dict | None], seeds: set[int], metric: str) -> float:
    """The mean validation score of a configuration, over these seeds if it has records of any.

    0 where the task has no validation score (MBPP): then the first configuration is chosen.
    """
    compared = finished({seed: record for seed, record in records.items() if seed in seeds}) or finished(records)
    return statistics.mean(record["validation"].get(metric, 0) for record in compared)


# Laying out -----------------------------------------------------------------------------------------------------------


def build_view(table: Table) -> View:
    """Reads the records of all runs and lays them out. Raises UserError for a file that is no record."""
    runs, paper = table.runs(), published(table.name)
    numbers = {(entry.row, entry.column): entry for entry in paper if entry.row}
    cells = make_cells(table, runs, numbers)
    columns: dict[str, str | None] = {}
    for by_column in cells.values():
        for column, cell in by_column.items():
            columns[column] = cell.metric if columns.get(column, cell.metric) == cell.metric else None
    add_means(table, cells, columns, numbers)
    return View(
        table,
        cells,
        columns,
        quoted=add_paper_only(paper, cells, columns),
        planned=len(runs),
        missing=sum(not run.done for run in runs),
        pending=sum(run.pending for run in runs),
        stopped=sum(run.stopped for run in runs),
    )


def make_cells(
    table: Table, runs: Sequence[PlannedRun], paper: Mapping[tuple[str, str], Published]
) -> dict[str, dict[str, Cell]]:
    """{row: {column: cell}} of the runs that are shown. paper: its numbers by (row, column)."""
    members: dict[tuple[str, str, str], list[PlannedRun]] = {}
    for run in runs:
        for quantity in run.quantities if run.shown else ():
            row, column = (table.heading(axes, run.config, quantity) for axes in (table.rows, table.columns))
            metric = task_of(run.config).reported if quantity == "score" else quantity
            members.setdefault((row, column, metric), []).append(run)
    cells: dict[str, dict[str, Cell]] = {}
    for (row, column, metric), planned in members.items():
        records, configurations = select_configuration(planned)
        cells.setdefault(row, {})[column] = Cell(
            row,
            column,
            metric,
            records,
            configurations,
            planned=len(planned),
            missing=sum(not run.done for run in planned),
            paper=paper.get((row, column)),
            values=[value for record in records if (value := value_of(record, metric)) is not None],
            config=planned[0].config,
        )
    return cells


def value_of(record: dict, metric: str) -> float | None:
    """The number of a record that a cell prints: a quantity or a test score."""
    return QUANTITIES[metric](record) if metric in QUANTITIES else record["test"].get(metric)


def add_means(
    table: Table,
    cells: dict[str, dict[str, Cell]],
    columns: dict[str, str | None],
    paper: Mapping[tuple[str, str], Published],
) -> None:
    """Adds the table's columns of means over tasks to the rows that have any of these tasks."""
    for title, tasks in table.means.items():
        for row, by_column in cells.items():
            if parts := [by_column[task] for task in tasks if task in by_column]:
                by_column[title] = mean_cell(row, title, parts, len(tasks), paper.get((row, title)))
                columns[title] = "mean"


def mean_cell(row: str, column: str, parts: list[Cell], tasks: int, paper: Published | None) -> Cell:
    """The mean over tasks, one value a seed. It is empty unless all `tasks` are there, with as many seeds each."""
    counts = {len(part.values) for part in parts}
    complete = len(parts) == tasks and len(counts) == 1 and 0 not in counts
    by_seed = zip(*(part.values for part in parts), strict=True) if complete else ()
    return Cell(row, column, "mean", [], paper=paper, values=[statistics.mean(values) for values in by_seed])


def add_paper_only(
    paper: Sequence[Published], cells: dict[str, dict[str, Cell]], columns: dict[str, str | None]
) -> dict[str, dict[str, Published]]:
    """The paper's numbers that no run of ours belongs to.

    Those of a row that we have become cells without records (Table 15 has methods in its columns). Those of other rows
    are returned as {method: {column: number}}.
    """
    quoted: dict[str, dict[str, Published]] = {}
    for entry in paper:
        if entry.row not in cells:
            quoted.setdefault(entry.method, {})[entry.column] = entry
        elif entry.column not in cells[entry.row]:
            cells[entry.row][entry.column] = Cell(entry.row, entry.column, "", [], paper=entry)
            columns.setdefault(entry.column, "")
    return quoted
