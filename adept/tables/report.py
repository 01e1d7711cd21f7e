"""Run records and the paper's numbers -> the cells of a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from adept.base.errors import UserError
from adept.config.run import RunConfig, task_of
from adept.tables.published import Published, published
from adept.tables.significance import TestedRun, is_small_test, paired_bootstrap, seed_interval
from adept.tables.table import PlannedRun, Table

MISSING = "–"


PAPER_STEPS = 300_000


def offset_statistic(name: str):
    """Mean or variance of |offset| over the training set's tokens (Table 2); of |E| where the method has no offset."""
    return lambda record: (
        (record["offsets"].get("offset") or record["offsets"]["embeddings"])[name] if "offsets" in record else None
    )


QUANTITIES = {
    "samples/s": lambda record: record["timing"].get("test_examples_per_second"),
    "hours": lambda record: PAPER_STEPS / rate / 3600 if (rate := record["timing"].get("steps_per_second")) else None,
    "mean": offset_statistic("mean"),
    "variance": offset_statistic("variance"),
}
"""What a cell can print besides test metrics: record -> number or None. Hours are those of 300,000 steps at the
measured rate.
"""


@dataclass
class Cell:
    """What stands at one row and column: the configuration chosen by validation, its records (one a seed), the paper's
    number.
    """

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
    def seed_interval(self) -> tuple[float, float] | None:
        return seed_interval(self.values)

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return (
            None
            if self.mean is None or self.paper is None or self.paper.value is None
            else self.mean - self.paper.value
        )

    @property
    def small(self) -> bool:
        return (
            bool(self.records)
            and self.metric not in QUANTITIES
            and any(is_small_test(record) for record in self.records)
        )

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
        given = {**self.table.profile_models, **self.table.given}
        places = ("results_dir", "data_dir", "device", "track", "wandb_project", "wandb_group")
        return {name: value for name, value in given.items() if name not in places}

    @cached_property
    def all_cells(self) -> list[Cell]:
        return [cell for row in self.cells.values() for cell in row.values()]

    @cached_property
    def notes(self) -> list[str]:
        found: dict[str, None] = {}
        for cell in self.all_cells:
            found |= dict.fromkeys(
                f"{record['config']['task']}: {note}" for record in cell.records for note in record["notes"]
            )
        return list(found)

    @cached_property
    def tests(self) -> dict[tuple[str, str], dict]:
        """{(row, column): paired bootstrap of that cell against the cell of ADePT in the same column} where both were
        tested alike.
        """
        found = {}
        predictions: dict[str, TestedRun] = {}

        def read(record: dict) -> TestedRun:
            run_id = record["run_id"]
            if run_id not in predictions:
                predictions[run_id] = TestedRun(record, str(self.table.results_dir))
            return predictions[run_id]

        for column in self.columns:
            base = next(
                (row[column] for name, row in self.cells.items() if name.split()[0] == "adept" and column in row), None
            )
            for row, by_column in self.cells.items():
                cell = by_column.get(column)
                if (
                    cell is None
                    or base is None
                    or cell is base
                    or not (cell.records and base.records)
                    or cell.metric in QUANTITIES
                ):
                    continue
                if cell.metric.startswith("pass@") or cell.metric != base.metric:
                    continue
                try:
                    pair = [[read(record) for record in one.records] for one in (base, cell)]
                    found[row, column] = paired_bootstrap(*pair, cell.metric)
                except (UserError, ValueError):  # predictions are not there, or of other rows
                    continue
        return found


def select_configuration(runs: Sequence[PlannedRun]) -> tuple[list[dict], list[list[dict]]]:
    """(records of the configuration chosen by validation, records of every configuration that is there).

    A configuration is everything but the seed; they are compared by their mean validation score over the seeds that all
    of them have. Only those whose every such seed is there can be chosen, unless none is complete.
    """
    groups: dict[tuple, dict[int, dict | None]] = {}
    for run in runs:
        if not run.pending:
            # A start differs from seed to seed, as its run does; the cell that it was chosen in does not.
            own = ("seed", "init_from") if run.start else ("seed",)
            key = (run.start, *((name, value) for name, value in run.config.flat().items() if name not in own))
            groups.setdefault(key, {})[run.config.seed] = run.record
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
    return [record for record in best.values() if record], [
        [record for record in records.values() if record] for records in there
    ]


def value_of(record: dict, metric: str) -> float | None:
    return QUANTITIES[metric](record) if metric in QUANTITIES else record["test"].get(metric)


def build_view(table: Table) -> View:
    """Reads the records of all runs and lays them out. Raises UserError for a file that is no record."""
    runs = table.runs()
    by_cell: dict[tuple[str, str, str], list[PlannedRun]] = {}
    for run in runs:
        if run.shown:
            for quantity in run.quantities:
                metric = task_of(run.config).reported if quantity == "score" else quantity
                key = (
                    table.key(table.rows, run.config, quantity),
                    table.key(table.columns, run.config, quantity),
                    metric,
                )
                by_cell.setdefault(key, []).append(run)
    paper = {(entry.row, entry.column): entry for entry in published(table.name) if entry.row}
    cells: dict[str, dict[str, Cell]] = {}
    for (row, column, metric), members in by_cell.items():
        records, configurations = select_configuration(members)
        values = [value for record in records if (value := value_of(record, metric)) is not None]
        missing = sum(not run.done for run in members)
        cells.setdefault(row, {})[column] = Cell(
            row,
            column,
            metric,
            records,
            configurations,
            len(members),
            missing,
            paper.get((row, column)),
            values,
            members[0].config,
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
        elif (
            entry.column not in cells[entry.row]
        ):  # the paper has a task or method there that was not run (other columns of Table 15)
            cells[entry.row][entry.column] = Cell(entry.row, entry.column, "", [], paper=entry)
            columns.setdefault(entry.column, "")
    missing, pending, stopped = (
        sum(not run.done for run in runs),
        sum(run.pending for run in runs),
        sum(run.stopped for run in runs),
    )
    return View(table, cells, columns, quoted, missing, len(runs), pending, stopped)


def mean_cell(row: str, name: str, parts: list[Cell], tasks: int, paper: Published | None) -> Cell:
    """The mean over tasks, one value a seed; empty unless every task and as many seeds of each are there."""
    seeds = {len(part.values) for part in parts}
    whole = len(parts) == tasks and len(seeds) == 1 and 0 not in seeds
    values = [statistics.mean(scores) for scores in zip(*(part.values for part in parts), strict=True)] if whole else []
    return Cell(row, name, "mean", [], [], 0, 0, paper, values)
