"""A table: the grid of a YAML file, and the runs that it stands for.

Validation chooses what some runs start from and which configuration other seeds repeat, so the runs of a table depend
on which records are there; Table.runs() reads them anew each time.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from adept.base.errors import UserError
from adept.base.options import default_of, is_place
from adept.config.layers import resolve
from adept.config.run import METHOD_OPTIONS, OPTIONS, TASK_OPTIONS, RunConfig
from adept.data.dataset import with_steps
from adept.methods import find_method
from adept.tables.planned_run import TIMES, Key, PlannedRun, select_by_validation
from adept.tasks import find_task, task_names

MOST_RUNS = 10_000
"""One grid entry may stand for this many runs."""

LONGEST_VARIANT = 120
"""Bytes of what a file's name says of changed options; beyond them it has a digest in their place."""

QUANTITY = "quantity"
"""The one axis of a table that is not an option of runs: which number of a record is printed."""


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
    remarks: Mapping[str, str] = field(default_factory=dict)
    """{heading of a row or column, or a method as the paper prints it: what its numbers do not say}."""
    timed: Mapping[str, Any] = field(default_factory=dict)
    """Options of the runs whose times and memory are printed; without any, those of all runs are."""
    order: tuple[str, ...] = ()
    """Options by whose values the runs are carried out; without any, in the order of the grid."""
    compare_with: Mapping[str, Any] = field(default_factory=lambda: {"method": "adept"})
    """{option: value} of the cells that the paired test compares the others with."""
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """{option: values}: only runs with one of the values of each option are run and printed."""
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
        default = self.fields.get("results_dir", default_of(OPTIONS["results_dir"]))
        return Path(self.common_overrides.get("results_dir", default))

    @property
    def changes(self) -> dict[str, Any]:
        """{option: value} of the command line's options that change what is run, not where."""
        return {name: value for name, value in self.overrides.items() if not is_place(OPTIONS[name])}

    @property
    def variant(self) -> str:
        """What --only and the command line changed, as a part of a file's name: "-task=rte-steps=5"; else empty."""
        only = [f"{name}={','.join(map(str, values))}" for name, values in self.only.items()]
        changed = [f"{name}={value}" for name, value in self.changes.items()]
        text = "".join("-" + re.sub(r"[^\w.,=@-]+", "_", word) for word in (*only, *changed))
        return text if len(text.encode()) <= LONGEST_VARIANT else f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def file_name(self) -> str:
        """The name of the table's files: its own, the profile's, and the variant's."""
        return "-".join(filter(None, (self.name, self.profile))) + self.variant

    def key(self, axes: tuple[str, ...], config: RunConfig, quantity: str = "") -> Key:
        """(option, value) of the options in `axes`, without those that the run does not have."""
        values = [(name, quantity or None if name == QUANTITY else config.get(name)) for name in axes]
        return tuple((name, value) for name, value in values if value is not None)

    def headings(self, keys: Iterable[Key]) -> dict[Key, str]:
        """{key: what is printed for it}: labels of its values. Where two keys have the same, options are named too."""
        texts = {key: " ".join(filter(None, (self.label(value) for _, value in key))) for key in keys}
        shared = {text for text, count in Counter(texts.values()).items() if count > 1}
        return {
            key: " ".join(f"{name} {value}" for name, value in key) if text in shared else text
            for key, text in texts.items()
        }

    def label(self, value: Any) -> str:
        return self.labels.get(str(value), str(value))

    def cell(self, run: PlannedRun) -> tuple[Key, Key]:
        """(row, column) of a run."""
        return self.key(self.rows, run.config), self.key(self.columns, run.config)

    def runs(self) -> list[PlannedRun]:
        """The runs that the finished runs decide so far, in the order of the file: all, or those of `only`.

        Two entries of the same run give one, with the quantities of those that are shown.
        """
        by_entry: list[list[PlannedRun]] = []
        timed: list[PlannedRun] = []
        for entry in self.grid:
            runs = [run for case in entry.cases for run in self._runs_of(entry, {**entry.fields, **case}, by_entry)]
            if self.timed:
                timed += self._timed_runs(runs)
                runs = [replace(run, quantities=without_times(run.quantities)) for run in runs]
            by_entry.append(self._with_rivals(runs) + self._other_seeds(runs, entry.fields))
        unique: dict[tuple, PlannedRun] = {}
        for run in itertools.chain(*by_entry, timed):
            if (known := unique.get((run.id, run.pending))) is not None:
                shown = [same for same in (known, run) if same.shown] or [known, run]
                quantities = dict.fromkeys(itertools.chain.from_iterable(same.quantities for same in shown))
                run = replace(known, quantities=tuple(quantities), shown=known.shown or run.shown)
            unique[run.id, run.pending] = run
        return self._selected(list(unique.values()))

    def runs_in_order(self) -> list[PlannedRun]:
        """runs() as they are carried out: those with the first value of the first option of `order` come first."""
        runs = self.runs()
        ranks = {name: list(dict.fromkeys(run.config.get(name) for run in runs)) for name in self.order}
        return sorted(runs, key=lambda run: [values.index(run.config.get(name)) for name, values in ranks.items()])

    def _selected(self, runs: list[PlannedRun]) -> list[PlannedRun]:
        """The runs of `only`, and those that their starts are chosen from."""
        if not self.only:
            return runs
        selected = [run for run in runs if self._is_selected(run)]
        known = 0
        while len(selected) > known:  # a start may have a start of its own
            known = len(selected)
            starts = {run.start for run in selected} - {None}
            ids = {run.id for run in selected}
            selected = [
                run for run in runs if run.id in ids or (not (run.shown and run.start) and self.cell(run) in starts)
            ]
        return [run if self._is_selected(run) else replace(run, shown=False) for run in selected]

    def _is_selected(self, run: PlannedRun) -> bool:
        return all(run.config.get(name) in values for name, values in self.only.items())

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
    ) -> list[tuple[dict, bool, tuple[Key, Key]]]:
        """(flags, pending, start) of the runs that start from the best of `parents` of each cell and seed.

        A child takes over its parent's options, except what `fields` or the command line set, and does not train unless
        `fields` has steps.
        """
        groups: dict[tuple, list[PlannedRun]] = {}
        for run in parents:
            groups.setdefault((self.cell(run), run.config.seed), []).append(run)
        children = []
        for runs in groups.values():
            best, decided = chosen_run(runs)
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

    def _timed_runs(self, runs: list[PlannedRun]) -> list[PlannedRun]:
        """The first run of each cell that prints times, with the options of `timed`."""
        timed = []
        for group in self._group_by_cell([run for run in runs if run.config.steps and run.shown and run.timed]):
            first = group[0]
            flags = {**first.flags, **self.timed, **{k: v for k, v in self.common_overrides.items() if k in self.timed}}
            times = tuple(name for name in first.quantities if name in TIMES)
            timed.append(replace(first, config=resolve_once(self.path, **flags), flags=flags, quantities=times))
        return timed

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
            best, decided = chosen_run(group)
            for seed in self.seeds[1:]:
                flags = {**best.flags, "seed": seed}
                config = resolve_once(self.path, **flags)
                repeated.append(replace(best, config=config, flags=flags, pending=not decided))
        return repeated


def without_times(quantities: tuple[str, ...]) -> tuple[str, ...]:
    """The quantities that a run may print which has shared its steps with others."""
    return tuple(name for name in quantities if name not in TIMES)


@lru_cache(maxsize=None, typed=True)
def resolve_once(source: str, **flags: Any) -> RunConfig:
    """resolve() with a cache, because a sweep asks for its table's runs again whenever one has ended.

    The cache keeps values of different types apart: 1 is not True.
    """
    return with_steps(resolve(flags, source=source))


def chosen_run(runs: Sequence[PlannedRun]) -> tuple[PlannedRun, bool]:
    """(the run that validation chooses among runs of one seed, whether that is decided); until then the first one."""
    selection = select_by_validation(runs)
    return (selection.runs[0] if selection.decided else runs[0]), selection.decided


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
