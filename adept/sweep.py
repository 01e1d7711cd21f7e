"""A table's YAML file -> RunConfigs -> runs -> the printed table. Finished runs skip themselves.

python -m adept.sweep configs/table12.yaml [--dry_run] [--profile NAME] [--launch local --workers 4] [--FIELD VALUE ...]

Fields override all runs that use them. The file:

title, note      the heading and a line under the table
fields           of all runs
grid             a list of entries; where a value is a list, every value is run. An entry may have, besides fields,
  cases          a list of {field: value}: fields that vary together (a prompt length and its bottleneck)
  name, from     the entry starts from the best runs, by validation, of the entry so named, one for each of their cells and seeds:
                 it takes over their fields, their weights (--init_from), and trains no further unless it says `steps`
  show: false    its runs are not printed
  quantities     in place of the table's
seeds            the grid is searched with the first; what validation chose for a cell runs again with the others (untrained runs do not)
rows, columns    the fields (one or several) that the report lays out; "quantity" is what `quantities` lists
quantities       what a cell prints: "score" (the task's reported metric), another metric's name, or one of adept/report.py
means            {name: tasks}: a column with the mean over these tasks
labels           {value: what is printed in its place}

A profile (configs/profiles/NAME.yaml) shrinks a table: its `fields` override, its `models` stand in for others, `search` configurations of
a cell and as many seeds stay, and `labels` are added. A table says in its heading what was changed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import shlex
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from adept import results
from adept.config import FIELDS, ROOT, OneLineParser, RunConfig, UserError, command_line, nearest, parse, read_yaml, reason, resolve
from adept.early import EarlyStopping, forget, is_stopped
from adept.launch import BUSY, STOPPED, Here, Launcher, Local, Outcome, Ray, submit_to_slurm
from adept.methods import find_method, method_specific_fields
from adept.step import stack_key
from adept.stop import Signals, told
from adept.tasks import find_task, task_names, task_specific_fields

KEYS = {
    "title": str, "note": str, "fields": dict, "grid": list, "seeds": list, "rows": (str, list), "columns": (str, list),
    "quantities": list, "means": dict, "labels": dict,
}  # fmt: skip
PROFILE_KEYS = {"note": str, "fields": dict, "models": dict, "search": int, "labels": dict}
ENTRY_KEYS = {"cases": list, "name": str, "from": str, "show": bool, "quantities": list}
MOST_RUNS = 10_000
QUANTITY = "quantity"
"""The axis that is no RunConfig field: what of a record is printed."""


@dataclass(frozen=True)
class Run:
    """A run of a table. pending: validation of other runs has to choose its start or its configuration first.

    rivals: run ids of the other configurations that are searched in its cell; empty where nothing is searched.
    start: the cell whose best run it starts from: what its configuration has in common with that of another seed.
    """

    config: RunConfig
    flags: Mapping[str, Any]
    quantities: tuple[str, ...] = ("score",)
    shown: bool = True
    pending: bool = False
    rivals: tuple[str, ...] = ()
    start: tuple[str, str] | None = None

    @cached_property
    def id(self) -> str:
        return self.config.run_id

    def record(self) -> dict | None:
        return self._record

    @cached_property
    def _record(self) -> dict | None:
        return None if self.pending else results.find(self.config.results_dir, self.id)

    @property
    def stopped(self) -> bool:
        """--early_stopping ended it: validation chooses among the others."""
        return not self.pending and is_stopped(self.config)

    @property
    def done(self) -> bool:
        return self.record() is not None or self.stopped


@dataclass(frozen=True)
class Table:
    """A table's YAML file, its profile and overrides."""

    path: str
    title: str
    note: str
    fields: Mapping[str, Any]
    grid: list[Mapping[str, Any]]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    seeds: tuple[Any, ...]
    quantities: tuple[str, ...]
    means: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, str]
    overrides: Mapping[str, Any]  # the command line's
    shrunk: Mapping[str, Any]  # the profile's content
    profile: str | None

    @property
    def name(self) -> str:
        return Path(self.path).stem

    @property
    def results_dir(self) -> Path:
        return Path(self.overrides.get("results_dir", self.shrunk.get("fields", {}).get("results_dir", FIELDS["results_dir"].default)))

    def key(self, fields: tuple[str, ...], config: RunConfig, quantity: str = "") -> str:
        """The heading of the row or column that a run belongs to: its values of these fields, empty ones left out."""
        values = [quantity if name == QUANTITY else getattr(config, name) for name in fields]
        return " ".join(filter(None, (self.labels.get(str(value), str(value)) for value in values if value is not None)))

    def cell(self, run: Run) -> tuple[str, str]:
        return self.key(self.rows, run.config), self.key(self.columns, run.config)

    def runs(self) -> list[Run]:
        """Every run as far as finished runs decide it now, one a run id, in the order of the file."""
        by_entry: list[list[Run]] = []
        for entry in self.grid:
            options = {name: entry[name] for name in ENTRY_KEYS if name in entry}
            fields = {name: value for name, value in entry.items() if name not in ENTRY_KEYS}
            quantities, shown = tuple(options.get("quantities", self.quantities)), options.get("show", True)
            runs = []
            for case in options.get("cases", [{}]):
                if "from" in options:
                    parents = [runs for runs, other in zip(by_entry, self.grid, strict=False) if other.get("name") == options["from"]]
                    made = self._children([run for runs in parents for run in runs], {**fields, **case})
                else:
                    seed = {"seed": self.seeds[0]} if self.seeds and "seed" not in fields else {}
                    flags = self._expand({**self.fields, **seed, **fields, **case}, self._given)
                    made = [(given, False, None) for given in flags]
                runs += [
                    Run(resolved(self.path, **flags), flags, quantities, shown, pending, start=start) for flags, pending, start in made
                ]
            by_entry.append(self._with_rivals(runs) + self._reseeded(runs, fields))
        unique: dict[tuple, Run] = {}
        for run in itertools.chain(*by_entry):
            unique.setdefault((run.id, run.pending), run)
        return list(unique.values())

    def _children(self, parents: list[Run], fields: Mapping[str, Any]) -> list[tuple[dict, bool, tuple[str, str]]]:
        """(flags, pending, start) of the runs that start from the best of `parents` of each cell and seed."""
        groups: dict[tuple, list[Run]] = {}
        for run in parents:
            groups.setdefault((self.cell(run), run.config.seed), []).append(run)
        made = []
        for runs in groups.values():
            best, decided = best_run(runs)
            start = {name: value for name, value in best.flags.items() if name not in ("init_from", "steps", "few_shot")}
            given = {name: value for name, value in self._given.items() if name in fields or name not in {*start, "steps"}}
            for flags in self._expand({**start, "steps": 0, **fields, "init_from": best.id}, given):
                made.append((flags, not decided, self.cell(best)))
        return made

    @property
    def _given(self) -> dict[str, Any]:
        return {**self.shrunk.get("fields", {}), **self.overrides}

    def _expand(self, entry: Mapping[str, Any], overrides: Mapping[str, Any]) -> list[dict[str, Any]]:
        group = "-".join(filter(None, (self.name, self.profile)))
        runs = expand({**entry, "wandb_group": entry.get("wandb_group", group)}, overrides, self.path)
        models = self.shrunk.get("models", {})
        return [{**flags, "model": models.get(model, model)} if (model := flags.get("model", FIELDS["model"].default)) in models else flags
                for flags in runs]  # fmt: skip

    def _cells(self, runs: list[Run]) -> list[list[Run]]:
        cells: dict[tuple, list[Run]] = {}
        for run in runs:
            cells.setdefault(self.cell(run), []).append(run)
        return list(cells.values())

    def _with_rivals(self, runs: list[Run]) -> list[Run]:
        """The runs of an entry; those of a cell that is searched with one seed know each other."""
        rivals: dict[str, tuple[str, ...]] = {}
        for group in self._cells([run for run in runs if run.config.steps and not run.pending]):
            if len({run.config.seed for run in group}) == 1:
                rivals |= {run.id: tuple(other.id for other in group if other is not run) for run in group}
        return [replace(run, rivals=rivals[run.id]) if rivals.get(run.id) else run for run in runs]

    def _reseeded(self, runs: list[Run], fields: Mapping[str, Any]) -> list[Run]:
        """What validation chose in each cell, with the table's other seeds."""
        if len(self.seeds) < 2 or "seed" in fields or "seed" in self._given:
            return []
        again = []
        for group in self._cells([run for run in runs if run.config.steps and run.config.init_from is None]):
            best, decided = best_run(group)
            for seed in self.seeds[1:]:
                flags = {**best.flags, "seed": seed}
                again.append(replace(best, config=resolved(self.path, **flags), flags=flags, pending=not decided))
        return again


@lru_cache(maxsize=None, typed=True)
def resolved(source: str, **flags: Any) -> RunConfig:
    """resolve(), once for every set of flags: a sweep lays its table out anew whenever a run is done."""
    return resolve(flags, source=source)


def best_run(runs: list[Run]) -> tuple[Run, bool]:
    """(the run with the best validation score, whether all are there to choose from, save those stopped early); the first where
    nothing validates."""
    runs = [run for run in runs if not run.stopped] or runs
    if len(runs) == 1:
        return runs[0], not runs[0].pending and (runs[0].config.steps == 0 or runs[0].record() is not None)
    records = [run.record() for run in runs]
    if None in records:
        return runs[0], False
    scores = [record["validation"].get(run.config.select_on, 0) for run, record in zip(runs, records, strict=True)]
    return runs[scores.index(max(scores))], True


def validation_score(records: list[dict], metric: str) -> float:
    return statistics.mean(record["validation"].get(metric, 0) for record in records)


# Reading ----------------------------------------------------------------------------------------------------------------


def load_table(path: Path, overrides: Mapping[str, Any], profile: str | None = None) -> Table:
    """Reads a table file. Raises UserError for unknown keys, wrong types and runs that do not resolve."""
    content = {"note": "", "fields": {}, "rows": "method", "columns": "task", "quantities": ["score"]} | read_yaml(path)
    check_keys(content, KEYS, path)
    for key in ("title", "grid"):
        if not content.get(key):
            raise UserError(f"{path}: '{key}' is missing")
    shrunk = read_profile(profile) if profile else {}
    labels = {str(value): str(label) for value, label in {**content.get("labels", {}), **shrunk.get("labels", {})}.items()}
    for name, tasks in content.get("means", {}).items():
        if not isinstance(tasks, list):
            raise UserError(f"{path}: 'means: {name}' must be a list of tasks, not {tasks!r:.80}")
    for key in ("rows", "columns", "quantities", "seeds"):
        if (values := content.get(key)) and isinstance(values, list) and any(isinstance(value, list | dict) for value in values):
            raise UserError(f"{path}: '{key}' must be a list of single values, not {values!r:.80}")
    rows, columns = (tuple([value] if isinstance(value, str) else value) for value in (content["rows"], content["columns"]))
    for axis in (*rows, *columns):
        if axis not in FIELDS and axis != QUANTITY:
            raise UserError(f"{path}: '{axis}' is no RunConfig field; {nearest(str(axis), [*FIELDS, QUANTITY])}")
    for entry in content["grid"]:
        check_entry(entry, content["grid"], path)
    fields, grid, seeds = content["fields"], content["grid"], content.get("seeds", [])
    if shrunk:
        keep = {*rows, *columns}
        fields = shrink(fields, shrunk.get("search"), keep)
        grid = [shrink(entry, shrunk.get("search"), keep if entry.get("show", True) else set()) for entry in grid]
        seeds = seeds[: shrunk.get("search")]
    table = Table(
        path=str(path),
        title=content["title"],
        note=" ".join(filter(None, (content["note"], shrunk.get("note")))),
        fields=fields,
        grid=grid,
        rows=rows,
        columns=columns,
        seeds=tuple(seeds),
        quantities=tuple(content["quantities"]),
        means={
            name: tuple(itertools.chain(*(task_names(str(task)) for task in tasks))) for name, tasks in content.get("means", {}).items()
        },
        labels=labels,
        overrides=overrides,
        shrunk=shrunk,
        profile=profile,
    )
    return table


def check_overrides(tables: list[Table]) -> None:
    """Raises UserError for a field of the command line that no run uses."""
    used = {name for table in tables for run in table.runs() for name in run.flags}
    for name, value in tables[0].overrides.items():
        if name not in used:
            raise UserError(f"--{name} {value} has no effect on any run of {', '.join(table.path for table in tables)}")


def read_profile(name: str) -> dict:
    path = ROOT / "configs" / "profiles" / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"unknown profile '{name}'; {nearest(name, [file.stem for file in path.parent.glob('*.yaml')])}")
    content = read_yaml(path)
    check_keys(content, PROFILE_KEYS, path)
    return content


def check_keys(content: Mapping[str, Any], known: Mapping[str, Any], path: Path) -> None:
    for key, value in content.items():
        if key not in known:
            raise UserError(f"{path}: unknown key '{key}'; {nearest(str(key), known)}")
        kinds = known[key] if isinstance(known[key], tuple) else (known[key],)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise UserError(f"{path}: '{key}' must be a {' or '.join(kind.__name__ for kind in kinds)}, not {value!r}")


def check_entry(entry: Any, grid: list, path: Path) -> None:
    if not isinstance(entry, dict):
        raise UserError(f"{path}: each entry of 'grid' must hold {{field: value}}, not {entry!r}")
    check_keys({name: value for name, value in entry.items() if name in ENTRY_KEYS}, ENTRY_KEYS, path)
    if not all(isinstance(case, dict) for case in entry.get("cases", [])):
        raise UserError(f"{path}: 'cases' must be a list of {{field: value}}, not {entry['cases']!r}")
    before = [other.get("name") for other in grid[: grid.index(entry)]]
    if "from" in entry and entry["from"] not in before:
        raise UserError(f"{path}: 'from: {entry['from']}' names no entry above it; {nearest(entry['from'], filter(None, before))}")


def shrink(fields: Mapping[str, Any], search: int | None, keep: set[str]) -> dict[str, Any]:
    """Of `cases`, or of the first list that is searched, the first `search` values, of other lists one; axes (`keep`) keep all theirs."""
    shrunk: dict[str, Any] = {}
    for name, value in sorted(fields.items(), key=lambda item: item[0] != "cases"):
        axis = name in keep or (name == "cases" and any(keep & case.keys() for case in value))
        shrunk[name] = value
        if isinstance(value, list) and not axis and name != "quantities":
            shrunk[name], search = value[:search], 1
    return shrunk


def command(flags: Mapping[str, Any]) -> str:
    """The train.py command of one run."""
    words = [f"--{name} {'none' if value is None else shlex.quote(str(value))}" for name, value in flags.items()]
    return " ".join(["python train.py", *words])


def expand(entry: Mapping[str, Any], overrides: Mapping[str, Any], source: str = "grid") -> list[dict[str, Any]]:
    """One grid entry -> flags of each of its runs; "@glue" is each of its tasks.

    An override or common field that the run's method or task does not use is left out.

    Raises UserError naming `source` for a value that is neither plain nor a list of plain ones.
    """
    lists = {name: value if isinstance(value, list) else [value] for name, value in {**entry, **overrides}.items()}
    for name, values in lists.items():
        if not values or any(isinstance(value, (list, dict)) for value in values):
            raise UserError(f"{source}: '{name}' must be a value or a list of values, not {entry.get(name)!r}")
    if "task" in lists:
        lists["task"] = [name for value in lists["task"] for name in task_names(str(value))]
    if (count := math.prod(map(len, lists.values()))) > MOST_RUNS:
        raise UserError(f"{source}: one entry of the grid stands for {count:,} runs; at most {MOST_RUNS:,} are started")
    specific = method_specific_fields() | task_specific_fields()
    runs = []
    for values in itertools.product(*lists.values()):
        flags = dict(zip(lists, values, strict=True))
        used = {*find_method(str(flags.get("method", FIELDS["method"].default))).fields}
        if flags.get("task_file") is None and "task" in flags:
            used |= {*find_task(str(flags["task"])).switches}
        runs.append({name: value for name, value in flags.items() if name not in specific or name in used})
    return runs


# Carrying out -----------------------------------------------------------------------------------------------------------


ATTEMPTS = 2
"""A failed run is tried once more, then listed."""

POLL_SECONDS = 5.0
"""Between looks at runs that another sweep is doing."""


@dataclass(frozen=True)
class Started:
    run: Run
    stack: frozenset[str]  # run ids that were started together
    at: float = field(default_factory=time.monotonic)


@dataclass
class Progress:
    """What a sweep has done so far."""

    slots: int
    running: dict[str, Started] = field(default_factory=dict)  # by run id
    elsewhere: dict[str, float] = field(default_factory=dict)  # run id -> when to look again whether another sweep is done with it
    seconds: list[float] = field(default_factory=list)  # of the runs that this sweep finished
    failures: dict[str, list[str]] = field(default_factory=dict)  # run id -> outcome of each attempt

    @property
    def busy(self) -> int:
        """Slots of the launcher in use."""
        return len({started.stack for started in self.running.values()})

    @property
    def failed(self) -> dict[str, str]:
        """{run id: the last attempt's outcome} of the runs that are given up."""
        return {run_id: outcomes[-1] for run_id, outcomes in self.failures.items() if len(outcomes) >= ATTEMPTS}

    def line(self, runs: list[Run]) -> str:
        """done, running, failed, left and the time to go, which supposes that runs take as long as those that this sweep finished."""
        done, stopped = sum(run.record() is not None for run in runs), sum(run.stopped for run in runs)
        waiting = sum(run.pending for run in runs)
        ahead = len(runs) - done - stopped - len(self.failed)
        parts = [f"done {done} of {len(runs)}", *([f"stopped early {stopped}"] if stopped else [])]
        parts += [f"running {len(self.running)}", f"failed {len(self.failed)}", f"left {ahead - len(self.running)}"]
        parts[-1] += f" ({waiting} wait for validation to choose)" if waiting else ""
        if self.seconds and ahead:
            parts.append(f"{duration(statistics.mean(self.seconds) * -(-ahead // self.slots))} to go")
        return " · ".join(parts)


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else f"{round(seconds)} s"


def every_run(tables: Sequence[Table]) -> list[Run]:
    """The runs of all tables as far as finished runs decide them now, each once."""
    return list({(run.id, run.pending): run for table in tables for run in table.runs()}.values())


STACKED_TOKENS = 65_536
"""A stack's step has at most so many, counted at the longest sources; memory decides where it is less (adept/loop.py)."""

MOST_STACKED = 8


def stacks(ready: Sequence[Run], progress: Progress, most: int | None, on_gpu: bool) -> list[list[Run]]:
    """`ready` in stacks of runs that one slot takes together, at most `most` each.

    None: as many as a GPU, which single runs of short texts leave idle, gets work for; one on a CPU, which gains nothing. No more than keep
    all slots busy, and what has failed is tried again alone.
    """
    share = -(-len(ready) // progress.slots)
    made: list[list[Run]] = []
    open_stacks: dict[tuple, list[Run]] = {}
    for run in ready:
        config, key = run.config, None if run.id in progress.failures else stack_key(run.config)
        tokens = config.batch_size * ((config.prompt_len or 0) + config.max_source_len)
        fitting = min(MOST_STACKED, STACKED_TOKENS // tokens) if on_gpu and config.device != "cpu" else 1
        if key is None or len(open_stacks.get(key, ())) >= min(share, most or fitting) or key not in open_stacks:
            made.append([])
            open_stacks[key] = made[-1]
        open_stacks[key].append(run)
    return made


def carry_out(tables: Sequence[Table], launcher: Launcher, *, early_stopping: bool = False, stack: int | None = 1) -> dict[str, str]:
    """Runs whatever of the tables is not done, as finished runs decide it, until nothing more can be done.

    stack: the most runs that are trained together on one model; None: as many as help where the launcher is. Returns {run id: why} of the
    runs that failed twice. A run that another sweep on the same results folder is doing is waited for.
    """
    runs, progress = every_run(tables), Progress(launcher.slots)
    if not early_stopping:
        for run in runs:
            forget(run.config)
    news = True
    while True:
        undone = [run for run in runs if not (run.pending or run.done or run.id in progress.failed or run.id in progress.running)]
        ready = [run for run in undone if progress.elsewhere.get(run.id, 0) <= time.monotonic()]
        for together in stacks(ready, progress, stack, launcher.on_gpu)[: launcher.slots - progress.busy]:
            ids = frozenset(run.id for run in together)
            for run in together:
                progress.elsewhere.pop(run.id, None)
                progress.running[run.id] = Started(run, ids)
            judges = [EarlyStopping(run.config, run.rivals) if early_stopping and run.rivals else None for run in together]
            launcher.submit([(run.config, judge) for run, judge in zip(together, judges, strict=True)])
        if not undone and not progress.running:
            print(progress.line(runs), file=sys.stderr)
            for run in runs:
                if run.record() is not None:
                    results.finished(run.config.results_dir, run.id)  # tidies up after a process that was killed when the record stood
            return progress.failed
        if news:
            print(progress.line(runs), file=sys.stderr)
        while not (ended := launcher.wait(POLL_SECONDS)) and progress.running and not progress.elsewhere:
            pass
        if not ended and not progress.running:
            time.sleep(POLL_SECONDS)
        news = sum(tell(run_id, outcome, progress) for run_id, outcome in ended) > 0
        runs = every_run(tables)


def tell(run_id: str, outcome: Outcome, progress: Progress) -> bool:
    """Takes a run's outcome into `progress` and prints it; False where another sweep has the run, so that nothing is new."""
    started = progress.running.pop(run_id)
    if outcome == BUSY:
        progress.elsewhere[run_id] = time.monotonic() + POLL_SECONDS
        return False
    folder = started.run.config.results_dir
    record = results.find(folder, run_id)
    if outcome == STOPPED:
        print(f"{run_id}: stopped early", file=sys.stderr)
    elif outcome is None and record is not None:
        progress.seconds.append((time.monotonic() - started.at) / len(started.stack))
        print(results.table_line(record), flush=True)
    else:
        outcome = outcome or f"it ended, but its record is not in {folder}: do the machines share this folder?"
        progress.failures.setdefault(run_id, []).append(outcome)
        again = "" if run_id in progress.failed else ", once more"
        print(f"{run_id}: failed{again}: {outcome.splitlines()[0]}", file=sys.stderr)
    return True


USES = {"workers": ("local", "ray", "slurm"), "ray_address": ("ray",), "gpus_per_run": ("ray",), "slurm_options": ("slurm",)}
"""Flag -> the launchers that it is for."""


def check_launch(rest: argparse.Namespace) -> None:
    """Raises UserError for launchers' flags that contradict each other or are out of range."""
    kind = getattr(rest, "launch", "local")
    for name, kinds in USES.items():
        if name in rest and kind not in kinds:
            raise UserError(f"--{name} has no effect with --launch {kind}; it is for --launch {' and '.join(kinds)}")
    if getattr(rest, "workers", 1) < 1:
        raise UserError(f"--workers must be a whole number >= 1, not {rest.workers}")
    if str(getattr(rest, "stack", "auto")) != "auto" and not (rest.stack.isdigit() and int(rest.stack)):
        raise UserError(f"--stack must be a whole number >= 1 or auto, not {rest.stack}")
    if getattr(rest, "gpus_per_run", 0) < 0:
        raise UserError(f"--gpus_per_run must be a number >= 0, not {rest.gpus_per_run:g}")


def launcher_of(rest: argparse.Namespace) -> Launcher:
    """What --launch, --workers and the machine's GPUs ask for: without --launch a process for each GPU, this one where there is but one."""
    kind, workers = getattr(rest, "launch", None), getattr(rest, "workers", None)
    if kind == "ray":
        return Ray(getattr(rest, "ray_address", None), getattr(rest, "gpus_per_run", None), workers)
    gpus = count_gpus()
    workers = workers or max(1, gpus)
    return Here() if kind == "here" or (kind is None and workers == 1) else Local(workers, gpus)


def count_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def dry_run(tables: list[Table]) -> int:
    """Prints the command of every run, and on stderr their number and the GPU hours they would take."""
    runs = every_run(tables)
    for run in runs:
        chosen = "  # start or configuration chosen by validation when the runs before are done" if run.pending else ""
        print(command(run.flags) + chosen)
    print(f"{len(runs)} runs, {estimate(runs)}", file=sys.stderr)
    return 0


STEPS_PER_SECOND = {256: 2.7, 348: 1.8, 512: 1.15}
"""T5-base on one GPU by maximum source length: DePT's released logs of 17 runs (batch 32, fp32)."""


def estimate(runs: list[Run]) -> str:
    """GPU hours at the speed of this results folder's own records of the model and task, else at that of DePT's released logs."""
    hours, measured, unknown = 0.0, 0, 0
    for run in runs:
        record, config = run.record(), run.config
        if config.steps == 0:
            continue
        if record is not None:
            rate, measured = record["timing"].get("steps_per_second"), measured + 1
        elif config.model == "t5-base":
            rate = next((rate for length, rate in STEPS_PER_SECOND.items() if config.max_source_len <= length), None)
        else:
            rate = None
        unknown += not rate
        hours += config.steps / rate / 3600 if rate else 0
    basis = f"{hours:,.1f} GPU hours at the speed of DePT's released T5-base logs"
    basis += f" ({measured} finished runs: at their own)" if measured else ""
    return basis + (f"; {unknown} runs of other models are not counted" if unknown else "")


def parser_of(description: str) -> OneLineParser:
    """The words that sweep and report share."""
    parser = command_line(description, config_file=False)
    parser.add_argument("table", type=Path, nargs="?", default=None, help="configs/<table>.yaml")
    parser.add_argument("--all", action="store_true", help="the paper's 15 tables in place of one")
    parser.add_argument("--profile", help="configs/profiles/NAME.yaml: 'smoke' (tiny random models), 'laptop' (a real small one)")
    return parser


def tables_of(rest: argparse.Namespace, overrides: Mapping[str, Any]) -> list[Table]:
    """The tables that the command line names. Raises UserError where it names none, or a field that no run of theirs uses."""
    if ("table" in rest and rest.table is not None) == ("all" in rest):
        raise UserError("name a table, such as configs/table12.yaml, or give --all")
    paths = [ROOT / "configs" / f"table{number}.yaml" for number in range(1, 16)] if "all" in rest else [rest.table]
    tables = [load_table(path, overrides, getattr(rest, "profile", None)) for path in paths]
    check_overrides(tables)
    return tables


def main(arguments: list[str]) -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--dry_run", action="store_true", help="print the commands, their number and the GPU hours")
    parser.add_argument(
        "--early_stopping",
        action="store_true",
        help="stop a searched run at 1/9 and 1/3 of its steps if not in its cell's best third",
    )
    parser.add_argument("--launch", choices=("here", "local", "ray", "slurm"), help="in this process, in processes, on a cluster")
    parser.add_argument("--workers", type=int, help="local: processes (one a GPU); slurm: elements of the array (8); ray: runs at a time")
    parser.add_argument("--ray_address", help="the cluster's address, 'auto' for the one this machine belongs to; none: a local one")
    parser.add_argument("--gpus_per_run", type=float, help="ray: 0.25 puts four runs on one GPU [1 where there are GPUs]")
    parser.add_argument(
        "--stack", help="runs of a task and model that are trained together on one model; auto: on GPUs, as many as help [auto]"
    )
    parser.add_argument("--slurm_options", help='sbatch\'s own: --slurm_options="--partition=gpu --gres=gpu:1 --time=24:00:00"')
    try:
        overrides, rest = parse(parser, arguments)
        check_launch(rest)
        tables = tables_of(rest, overrides)
        if "dry_run" in rest:
            return dry_run(tables)
        if getattr(rest, "launch", None) == "slurm":
            name, folder = "all_tables" if len(tables) > 1 else tables[0].name, tables[0].results_dir / "slurm"
            words = without(arguments, ("--launch", "--workers", "--slurm_options"))
            print(submit_to_slurm(name, words, getattr(rest, "workers", 8), getattr(rest, "slurm_options", ""), folder))
            return 0
        with contextlib.closing(launcher_of(rest)) as launcher, Signals() as signals, signals.at_once():
            try:
                stack = getattr(rest, "stack", "auto")
                failures = carry_out(
                    tables, launcher, early_stopping="early_stopping" in rest, stack=None if stack == "auto" else int(stack)
                )
            except KeyboardInterrupt:  # Ray raises one of its own: say which signal it was
                signals.check()
                raise
        from adept.report import publish, publish_all

        for table in tables:
            print(publish(table), flush=True)
        if "all" in rest:
            print(publish_all(tables))
        return list_failures(failures, tables)
    except (UserError, OSError) as error:
        print(f"error: {reason(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        return told(stop)


def list_failures(failures: Mapping[str, str], tables: Sequence[Table]) -> int:
    """Prints what failed, why, with its last lines, and what could not be run for it; returns the exit code."""
    for run_id, outcome in failures.items():
        reason, *details = outcome.splitlines()
        print(f"error: {run_id} failed {ATTEMPTS} times: {reason}", *(f"    {line}" for line in details), sep="\n", file=sys.stderr)
    if waiting := sum(run.pending for run in every_run(tables)):
        print(f"error: {waiting} runs wait for those that failed: validation cannot choose before", file=sys.stderr)
    return 2 if failures else 0


def without(arguments: list[str], flags: tuple[str, ...]) -> list[str]:
    """The command line without these flags and their values."""
    kept, skip = [], False
    for word in arguments:
        if not skip and word.split("=")[0] not in flags:
            kept.append(word)
        skip = word in flags
    return kept


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main(sys.argv[1:]))
