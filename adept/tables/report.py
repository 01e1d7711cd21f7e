"""Run records and the paper's numbers -> the cells of a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from adept.base.options import is_place
from adept.config.identities import model_label
from adept.config.layers import set_for_model
from adept.config.run import OPTIONS, task_of
from adept.tables.cell import MISSING, QUANTITIES, Cell, device_of, number_text, values_of
from adept.tables.planned_run import TIMES, Key, PlannedRun, select_by_validation
from adept.tables.published import Published, published
from adept.tables.significance import PairedTests, holm
from adept.tables.table import QUANTITY, Table

__all__ = ["MISSING", "QUANTITIES", "Cell", "View", "build_view", "number_text"]


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
    model_settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """{model: {option: value}} of what configs/base.yaml sets for the models of the table."""

    @cached_property
    def all_cells(self) -> list[Cell]:
        return [cell for row in self.cells.values() for cell in row.values()]

    @cached_property
    def compared(self) -> bool:
        """Whether the paper has a number in some cell."""
        return any(cell.paper for cell in self.all_cells)

    @property
    def changed(self) -> dict[str, object]:
        """{option: value} of what the profile and the command line changed of what all runs compute."""
        overrides = self.table.common_overrides.items()
        return {**self.table.profile_models, **{k: v for k, v in overrides if not is_place(OPTIONS[k])}}

    @cached_property
    def notes(self) -> list[str]:
        """The notes of the printed records, with their tasks, each once."""
        records = [record for cell in self.all_cells for record in cell.records]
        return list(
            dict.fromkeys(f"{record['config']['task']}: {note}" for record in records for note in record["notes"])
        )

    @cached_property
    def devices(self) -> dict[str, list[str]]:
        """{device: rows} of the runs whose times or memory are printed."""
        found: dict[str, dict[str, None]] = {}
        for cell in self.all_cells:
            for record in cell.records if cell.metric in TIMES else ():
                found.setdefault(device_of(record), {})[cell.row] = None
        return {device: list(rows) for device, rows in found.items()}

    @property
    def baseline_name(self) -> str:
        """What the cells are compared with, in words: "adept", "prompt_len 60"."""
        values = self.table.compare_with.items()
        return ", ".join(
            self.table.label(value) if name in ("method", "task", "model") else f"{name} {self.table.label(value)}"
            for name, value in values
        )

    def baselines(self, cell: Cell) -> list[Cell]:
        """The cells that have the values of compare_with, and otherwise no other value than this cell.

        More than one where an option of rows or columns belongs to the baseline's method alone.
        """
        wanted = {**cell.options, **self.table.compare_with}
        return [
            other
            for other in self.all_cells
            if self.table.compare_with.items() <= other.options.items()
            and all(wanted.get(name, value) == value for name, value in other.options.items())
        ]

    @cached_property
    def tests(self) -> dict[tuple[str, str], dict]:
        """{(row, column): paired test of its baseline against this cell, its p-value after Holm's correction}.

        Cells that cannot be compared on the same test rows are left out, and those that have several baselines.
        """
        tests = {}
        for cell in self.all_cells:
            baselines = self.baselines(cell) if cell.is_score else []
            if len(baselines) != 1 or baselines[0] is cell or baselines[0].metric != cell.metric:
                continue
            test = self._paired.compare(baselines[0].tested, cell.tested, cell.metric)
            if test is not None:
                tests[cell.row, cell.column] = test
        corrected = holm([test["p"] for test in tests.values()])
        return {key: {**test, "p": p_value} for (key, test), p_value in zip(tests.items(), corrected, strict=True)}

    @cached_property
    def ambiguous(self) -> bool:
        """Whether compare_with fits several cells, so that some are compared with none."""
        return any(cell.is_score and len(self.baselines(cell)) > 1 for cell in self.all_cells)

    @cached_property
    def intervals(self) -> dict[tuple[str, str], tuple[float, float]]:
        """{(row, column): 95% interval of the score over test rows and seeds}, where predictions are there."""
        found = {
            (cell.row, cell.column): self._paired.interval(cell.records, cell.metric)
            for cell in self.all_cells
            if cell.is_score
        }
        return {key: interval for key, interval in found.items() if interval is not None}

    @cached_property
    def _paired(self) -> PairedTests:
        return PairedTests(str(self.table.results_dir))


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
        quoted={} if table.only else add_paper_only(paper, cells, columns),
        planned=len(runs),
        missing=sum(not run.done for run in runs),
        pending=sum(run.pending for run in runs),
        stopped=sum(run.stopped for run in runs),
        model_settings=model_settings(runs),
    )


def make_cells(
    table: Table, runs: Sequence[PlannedRun], paper: Mapping[tuple[str, str], Published]
) -> dict[str, dict[str, Cell]]:
    """{row: {column: cell}} of the runs that are shown. paper: its numbers by (row, column)."""
    members: dict[tuple[Key, Key, str], list[PlannedRun]] = {}
    for run in runs:
        for quantity in run.quantities if run.shown else ():
            row, column = (table.key(axes, run.config, quantity) for axes in (table.rows, table.columns))
            metric = task_of(run.config).reported if quantity == "score" else quantity
            members.setdefault((row, column, metric), []).append(run)
    row_names, column_names = (table.headings(dict.fromkeys(key[part] for key in members)) for part in (0, 1))
    cells: dict[str, dict[str, Cell]] = {}
    for (row_key, column_key, metric), planned in members.items():
        selection = select_by_validation(planned)
        row, column = row_names[row_key], column_names[column_key]
        if column in cells.get(row, {}):  # two numbers of the same runs, and no axis tells them apart
            column = f"{column} {metric}".strip()
        cells.setdefault(row, {})[column] = Cell(
            row,
            column,
            metric,
            selection.records,
            selection.searched,
            selection.fresh_records,
            planned=len(planned),
            missing=sum(not run.done for run in planned),
            paper=paper.get((row, column)),
            values=values_of(selection.records, metric),
            config=planned[0].config,
            row_key=row_key,
            column_key=column_key,
        )
    return cells


def model_settings(runs: Sequence[PlannedRun]) -> dict[str, dict[str, object]]:
    """{model: {option: value}} of what configs/base.yaml sets for it in some of the runs that are shown."""
    found: dict[str, dict[str, set]] = {}
    for run in runs:
        for name, value in set_for_model(run.config, run.flags).items() if run.shown else ():
            found.setdefault(model_label(run.config.model), {}).setdefault(name, set()).add(value)
    return {
        model: {name: values[name].pop() for name in OPTIONS if len(values.get(name, ())) == 1}
        for model, values in found.items()
    }


def add_means(
    table: Table,
    cells: dict[str, dict[str, Cell]],
    columns: dict[str, str | None],
    paper: Mapping[tuple[str, str], Published],
) -> None:
    """Adds the table's columns of means over tasks to the rows that have any of these tasks."""
    for title, tasks in table.means.items():
        for row, by_column in cells.items():
            by_task = {
                cell.options["task"]: cell for cell in by_column.values() if is_part_of_mean(cell, table.quantities[0])
            }
            if parts := [by_task[task] for task in tasks if task in by_task]:
                by_column[title] = mean_cell(row, title, parts, len(tasks), paper.get((row, title)))
                columns[title] = "mean"


def is_part_of_mean(cell: Cell, quantity: str) -> bool:
    """Whether the cell's column stands for a task, and prints the table's first quantity."""
    column = dict(cell.column_key)
    return column.keys() <= {"task", QUANTITY} and "task" in column and column.get(QUANTITY, quantity) == quantity


def mean_cell(row: str, column: str, parts: list[Cell], tasks: int, paper: Published | None) -> Cell:
    """The mean over tasks, one value a seed. It is empty unless all `tasks` are there, with as many seeds each."""
    counts = {len(part.values) for part in parts}
    complete = len(parts) == tasks and len(counts) == 1 and 0 not in counts
    by_seed = zip(*(part.values for part in parts), strict=True) if complete else ()
    values = [statistics.mean(values) for values in by_seed]
    return Cell(row, column, "mean", [], paper=paper, values=values, parts=parts)


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
