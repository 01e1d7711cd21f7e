"""A table: the grid of a YAML file, and the runs that it stands for.

Validation chooses what some runs start from and which configuration other seeds repeat, so the runs of a table depend
on which records are there; Table.runs() reads them anew each time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from adept.base.errors import UserError
from adept.base.options import default_of
from adept.config.layers import resolve
from adept.config.run import METHOD_OPTIONS, OPTIONS, TASK_OPTIONS, RunConfig
from adept.data.dataset import with_steps
from adept.methods import find_method
from adept.runs.record import read_record_once
from adept.tables.early_stopping import is_stopped
from adept.tasks import find_task, task_names

MOST_RUNS = 10_000
"""One grid entry may stand for this many runs."""

QUANTITY = "quantity"
"""The one axis of a table that is not an option of runs: which number of a record is printed."""


TIMES = frozenset({"hours", "samples/s"})
"""The quantities that are times or speeds (adept/tables/report.py)."""


@dataclass(frozen=True)
class GridEntry:
    """One entry of a table's grid."""

    fields: Mapping[str, Any]
    """{option: value, or list of values each of which is run}."""
    cases: Sequence[Mapping[str, Any]] = ({},)
    """Options that vary together; each case is combined with all of `fields`."""
    name: str | None = None
    start: str | None = None
    """The name of an entry whose best runs these runs start from ("from" in the file)."""
    shown: bool = True
    """Whether its runs are printed."""
    quantities: tuple[str, ...] | None = None
    """What its cells print, in place of the table's quantities."""


@dataclass(frozen=True)
class PlannedRun:
    """A run of a table, finished or not."""

    config: RunConfig
    flags: Mapping[str, Any]
    """The options that the table gives it; `config` is resolved from them."""
    quantities: tuple[str, ...] = ("score",)
    shown: bool = True
    pending: bool = False
    """Cannot run yet: other runs must finish before validation can choose its start or its configuration."""
    rivals: tuple[str, ...] = ()
    """Run ids of the other configurations that are searched in its cell; empty where nothing is searched."""
    start: tuple[str, str] | None = None
    """(row, column) of the cell whose best run it starts from. Runs of several seeds have it in common."""

    @cached_property
    def id(self) -> str:
        return self.config.run_id

    @cached_property
    def record(self) -> dict | None:
        """The run's record; None where it is not finished. Raises UserError for a file that is no record."""
        return None if self.pending else read_record_once(self.config.results_dir, self.id)

    @property
    def timed(self) -> bool:
        """Whether the table prints how long it takes, so that no other run may share its steps."""
        return not TIMES.isdisjoint(self.quantities)

    @property
    def stopped(self) -> bool:
        """Whether early stopping ended the run. Validation then chooses among the others."""
        return not self.pending and is_stopped(self.config)

    @property
    def done(self) -> bool:
        """Whether a sweep has nothing left to do for it."""
        return self.record is not None or self.stopped


@dataclass(frozen=True)
class Table:
    """A table's YAML file, with a profile and the command line's options applied."""

    path: str
    title: str
    note: str
    fields: Mapping[str, Any]
    """Options of all runs."""
    grid: Sequence[GridEntry]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    seeds: tuple[Any, ...]
    quantities: tuple[str, ...]
    means: Mapping[str, tuple[str, ...]]
    """{title of a column: the tasks whose mean it is}."""
    labels: Mapping[str, str]
    """{value: what is printed in its place}."""
    overrides: Mapping[str, Any]
    """The command line's options, for all runs."""
    profile: str | None = None
    profile_fields: Mapping[str, Any] = field(default_factory=dict)
    profile_models: Mapping[str, str] = field(default_factory=dict)
    """{model of the table: the model that the profile runs in its place}."""

    @property
    def name(self) -> str:
        """The file's name without its extension."""
        return Path(self.path).stem

    @property
    def common_overrides(self) -> dict[str, Any]:
        """The options that the profile and the command line set for all runs."""
        return {**self.profile_fields, **self.overrides}

    @property
    def results_dir(self) -> Path:
        return Path(self.common_overrides.get("results_dir", default_of(OPTIONS["results_dir"])))

    def heading(self, axes: tuple[str, ...], config: RunConfig, quantity: str = "") -> str:
        """The heading of the row or column that a run belongs to: its values of the options in `axes`.

        An option that the run does not have is left out.
        """
        values = [quantity if name == QUANTITY else config.get(name) for name in axes]
        labels = [self.labels.get(str(value), str(value)) for value in values if value is not None]
        return " ".join(filter(None, labels))

    def cell(self, run: PlannedRun) -> tuple[str, str]:
        """(row, column) of a run."""
        return self.heading(self.rows, run.config), self.heading(self.columns, run.config)

    def runs(self) -> list[PlannedRun]:
        """All runs that the finished runs decide so far, in the order of the file.

        Two entries of the same run give one.
        """
        by_entry: list[list[PlannedRun]] = []
        for entry in self.grid:
            runs = [run for case in entry.cases for run in self._runs_of(entry, {**entry.fields, **case}, by_entry)]
            by_entry.append(self._with_rivals(runs) + self._other_seeds(runs, entry.fields))
        unique: dict[tuple, PlannedRun] = {}
        for run in itertools.chain(*by_entry):
            unique.setdefault((run.id, run.pending), run)
        return list(unique.values())

    def _runs_of(
        self, entry: GridEntry, fields: Mapping[str, Any], by_entry: list[list[PlannedRun]]
    ) -> list[PlannedRun]:
        """The runs of one case of an entry. by_entry: the runs of each entry above it."""
        if entry.start is not None:
            parents = [runs for runs, other in zip(by_entry, self.grid, strict=False) if other.name == entry.start]
            planned = self._children([run for runs in parents for run in runs], fields)
        else:
            seed = {"seed": self.seeds[0]} if self.seeds and "seed" not in entry.fields else {}
            options = {**self.fields, **seed, **fields}
            planned = [(flags, False, None) for flags in self._expand(options, self.common_overrides)]
        quantities = entry.quantities or self.quantities
        return [
            PlannedRun(resolve_once(self.path, **flags), flags, quantities, entry.shown, pending, start=start)
            for flags, pending, start in planned
        ]

    def _children(
        self, parents: list[PlannedRun], fields: Mapping[str, Any]
    ) -> list[tuple[dict, bool, tuple[str, str]]]:
        """(flags, pending, start) of the runs that start from the best of `parents` of each cell and seed.

        A child takes over its parent's options, except what `fields` or the command line set, and does not train unless
        `fields` has steps.
        """
        groups: dict[tuple, list[PlannedRun]] = {}
        for run in parents:
            groups.setdefault((self.cell(run), run.config.seed), []).append(run)
        children = []
        for runs in groups.values():
            best, decided = best_run(runs)
            inherited = {
                name: value for name, value in best.flags.items() if name not in ("init_from", "steps", "few_shot")
            }
            overrides = {
                name: value
                for name, value in self.common_overrides.items()
                if name in fields or name not in {*inherited, "steps"}
            }
            for flags in self._expand({**inherited, "steps": 0, **fields, "init_from": best.id}, overrides):
                children.append((flags, not decided, self.cell(best)))
        return children

    def _expand(self, entry: Mapping[str, Any], overrides: Mapping[str, Any]) -> list[dict[str, Any]]:
        """expand(), with the table's wandb group and the profile's models."""
        group = "-".join(filter(None, (self.name, self.profile)))
        runs = expand({**entry, "wandb_group": entry.get("wandb_group", group)}, overrides, self.path)
        for flags in runs:
            model = flags.get("model", default_of(OPTIONS["model"]))
            if model in self.profile_models:
                flags["model"] = self.profile_models[model]
        return runs

    def _group_by_cell(self, runs: list[PlannedRun]) -> list[list[PlannedRun]]:
        cells: dict[tuple, list[PlannedRun]] = {}
        for run in runs:
            cells.setdefault(self.cell(run), []).append(run)
        return list(cells.values())

    def _with_rivals(self, runs: list[PlannedRun]) -> list[PlannedRun]:
        """The runs of an entry, with the ids of their rivals: those of the same cell, where one seed is searched."""
        rivals: dict[str, tuple[str, ...]] = {}
        for group in self._group_by_cell([run for run in runs if run.config.steps and not run.pending]):
            if len({run.config.seed for run in group}) == 1:
                rivals |= {run.id: tuple(other.id for other in group if other is not run) for run in group}
        return [replace(run, rivals=rivals[run.id]) if rivals.get(run.id) else run for run in runs]

    def _other_seeds(self, runs: list[PlannedRun], fields: Mapping[str, Any]) -> list[PlannedRun]:
        """The configuration that validation chose in each cell, once with each of the table's other seeds."""
        if len(self.seeds) < 2 or "seed" in fields or "seed" in self.common_overrides:
            return []
        repeated = []
        for group in self._group_by_cell([run for run in runs if run.config.steps and run.config.init_from is None]):
            best, decided = best_run(group)
            for seed in self.seeds[1:]:
                flags = {**best.flags, "seed": seed}
                config = resolve_once(self.path, **flags)
                repeated.append(replace(best, config=config, flags=flags, pending=not decided))
        return repeated


@lru_cache(maxsize=None, typed=True)
def resolve_once(source: str, **flags: Any) -> RunConfig:
    """resolve() with a cache, because a sweep asks for its table's runs again whenever one has ended.

    The cache keeps values of different types apart: 1 is not True.
    """
    return with_steps(resolve(flags, source=source))


def best_run(runs: list[PlannedRun]) -> tuple[PlannedRun, bool]:
    """(the run with the best validation score, whether that is decided).

    It is decided when all runs are finished or stopped early. The first run is returned until then, and where the task
    has no validation score.
    """
    runs = [run for run in runs if not run.stopped] or runs
    if len(runs) == 1:
        return runs[0], not runs[0].pending and (runs[0].config.steps == 0 or runs[0].record is not None)
    records = [run.record for run in runs]
    if None in records:
        return runs[0], False
    scores = [record["validation"].get(run.config.select_on, 0) for run, record in zip(runs, records, strict=True)]
    return runs[scores.index(max(scores))], True


def expand(entry: Mapping[str, Any], overrides: Mapping[str, Any], source: str = "grid") -> list[dict[str, Any]]:
    """The flags of each run that a grid entry stands for: all combinations of its lists, overrides in their place.

    A task group such as "@glue" stands for each of its tasks. An option that the run's method or task does not have is
    left out, because overrides and common fields are written for all runs. Raises UserError, which names `source`, for
    a value that is neither plain nor a list of plain ones, and for more than MOST_RUNS runs.
    """
    combined = {**entry, **overrides}
    if overrides.get("epochs") is not None:  # in place of steps, but for runs that do not train
        combined.pop("epochs" if entry.get("steps") == 0 else "steps", None)
    lists = {name: value if isinstance(value, list) else [value] for name, value in combined.items()}
    for name, values in lists.items():
        if not values or any(isinstance(value, (list, dict)) for value in values):
            raise UserError(f"{source}: '{name}' must be a value or a list of values, not {entry.get(name)!r}")
    if "task" in lists:
        lists["task"] = [name for value in lists["task"] for name in task_names(str(value))]
    if (count := math.prod(map(len, lists.values()))) > MOST_RUNS:
        raise UserError(f"{source}: one entry of the grid stands for {count:,} runs; at most {MOST_RUNS:,} are started")
    specific = METHOD_OPTIONS | TASK_OPTIONS | {"steps", "epochs"}
    runs = []
    for values in itertools.product(*lists.values()):
        flags = dict(zip(lists, values, strict=True))
        method = find_method(str(flags.get("method", default_of(OPTIONS["method"]))))
        used = {*method.own_options(), *(["steps", "epochs"] if method.rates else [])}
        if flags.get("task_file") is None and "task" in flags:
            used |= find_task(str(flags["task"])).options.own_options().keys()
        runs.append({name: value for name, value in flags.items() if name not in specific or name in used})
    return runs
