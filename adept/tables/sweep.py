"""Carries out the runs of tables."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from adept.base.console import print_result, print_status
from adept.runs.comparison import accept
from adept.runs.record import finished_record, read_record, summary_line
from adept.runs.tracking import mirror_finished
from adept.tables.early_stopping import EarlyStopping, clear_stop
from adept.tables.failures import clear_failure, read_failure, write_failure
from adept.tables.launchers.launcher import BUSY, STOPPED, Launcher, Mistake, Outcome
from adept.tables.table import PlannedRun, Table
from adept.training.stack import stack_key

ATTEMPTS = 2
"""A run that fails this often is given up. After a mistake of the user's one attempt is enough."""

POLL_SECONDS = 5.0
"""Between two looks at a run that another sweep is doing."""

MAX_STACK = 8
"""The most runs that a GPU trains together."""

MAX_STACK_TOKENS = 65_536
"""The most tokens in a step of a stack, counted at the longest sources. Where memory is too small for them, the
training loop halves the stack (adept/training/loop.py).
"""


@dataclass(frozen=True)
class Started:
    """A run that a launcher has."""

    run: PlannedRun
    stack: frozenset[str]
    """The ids of the runs that were submitted together, its own among them."""
    time: float = field(default_factory=time.monotonic)


@dataclass
class Progress:
    """What a sweep has done so far."""

    slots: int
    """Stacks that the launcher does at a time."""
    running: dict[str, Started] = field(default_factory=dict)
    """By run id."""
    retry_times: dict[str, float] = field(default_factory=dict)
    """{run id: when to try a run again that another sweep is doing}."""
    seconds: list[float] = field(default_factory=list)
    """Of each run that this sweep finished."""
    failures: dict[str, list[str]] = field(default_factory=dict)
    """{run id: why each attempt failed}."""
    failed: dict[str, str] = field(default_factory=dict)
    """{run id: why its last attempt failed} of the runs that are given up."""
    since: float = field(default_factory=time.time)
    """When the sweep began."""

    @property
    def busy_slots(self) -> int:
        return len({started.stack for started in self.running.values()})

    def startable(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        """The runs that can be started now, and those that another sweep is doing.

        Those that another worker of this sweep has given up are entered into `failed`.
        """
        left = [run for run in runs if not (run.pending or run.done or run.id in self.failed or run.id in self.running)]
        for run in left:
            if (reason := read_failure(run.config, self.since)) is not None:
                self.failed[run.id] = reason
        return [run for run in left if run.id not in self.failed]

    def line(self, runs: Sequence[PlannedRun]) -> str:
        """The numbers of runs that are done, running, failed and left, and an estimate of the time to go.

        The estimate supposes that a run takes as long as those that this sweep finished.
        """
        done, stopped = sum(run.record is not None for run in runs), sum(run.stopped for run in runs)
        pending = sum(run.pending for run in runs)
        undone = len(runs) - done - stopped - len(self.failed)
        parts = [f"done {done} of {len(runs)}", *([f"stopped early {stopped}"] if stopped else [])]
        parts += [f"running {len(self.running)}", f"failed {len(self.failed)}", f"left {undone - len(self.running)}"]
        parts[-1] += f" ({pending} wait for validation to choose)" if pending else ""
        if self.seconds and undone:
            parts.append(f"{duration(statistics.mean(self.seconds) * math.ceil(undone / self.slots))} to go")
        return " · ".join(parts)


def duration(seconds: float) -> str:
    """Seconds in words: "9 s", "2 min", "5 h 28 min"."""
    minutes = round(seconds / 60)
    if not minutes:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def all_runs(tables: Sequence[Table]) -> list[PlannedRun]:
    """The runs of all tables that the finished runs decide so far, each once: as a table that times it has it."""
    runs = sorted((run for table in tables for run in table.runs_in_order()), key=lambda run: run.timed)
    return list({(run.id, run.pending): run for run in runs}.values())


def carry_out(
    tables: Sequence[Table],
    launcher: Launcher,
    *,
    early_stopping: bool = False,
    stack: int | None = 1,
    rerun: bool = False,
    waits: bool = True,
) -> dict[str, str]:
    """Does the runs of the tables that are not done, until nothing more can be done.

    Finished runs decide further ones, which are then done as well. A run that another sweep on the same results folder
    is doing is waited for.

    stack: the most runs that are trained together on one model; None chooses by launcher and run. rerun: finished runs
    that differ from what is asked are moved aside and made again. waits: for runs that others are doing, since these
    may decide further runs; else it ends when nothing is left for it, and the others do what is decided then. Returns
    {run id: why} of the runs that are given up. Raises UserError for a finished run that differs, without `rerun`.
    """
    runs, progress = accept_finished(tables, rerun), Progress(launcher.slots)
    if not early_stopping:
        for run in runs:
            clear_stop(run.config)
    changed = True
    while (startable := progress.startable(runs)) or progress.running:
        start_runs(startable, progress, launcher, early_stopping, stack)
        if not waits and not progress.running and progress.retry_times.keys() >= {run.id for run in startable}:
            print_status("other workers are doing all runs that are left: this one ends")
            break
        if changed:
            print_status(progress.line(runs))
        changed = sum(take_outcome(run_id, outcome, progress) for run_id, outcome in next_outcomes(launcher, progress))
        runs = all_runs(tables)
    print_status(progress.line(runs))
    for run in runs:
        if run.record is not None:
            finished_record(run.config.results_dir, run.id)  # removes what a killed process left beside the record
    return progress.failed


def accept_finished(tables: Sequence[Table], rerun: bool) -> list[PlannedRun]:
    """The runs of the tables, when those that are finished have been found to be what is asked, and been mirrored.

    With `rerun` the others are moved aside. Raises UserError where there are others without it.
    """
    accepted: set[str] = set()
    while True:
        runs = all_runs(tables)
        finished = [run for run in runs if run.id not in accepted and run.record is not None]
        if not finished:
            return runs
        for run in finished:
            if accept(run.config, run.record, rerun=rerun, timed=run.timed):
                mirror_finished(run.config, run.record)
            accepted.add(run.id)
        if not rerun:
            return runs


def start_runs(
    startable: Sequence[PlannedRun], progress: Progress, launcher: Launcher, early_stopping: bool, most: int | None
) -> None:
    """Submits stacks of the runs until the launcher's slots are in use."""
    ready = [run for run in startable if progress.retry_times.get(run.id, 0) <= time.monotonic()]
    if launcher.shares_devices:
        ready = beside_the_running(ready, progress)
    stacks = group_into_stacks(ready, progress, most, launcher.on_gpu)
    for stack in stacks[: launcher.slots - progress.busy_slots]:
        ids = frozenset(run.id for run in stack)
        jobs = []
        for run in stack:
            progress.retry_times.pop(run.id, None)
            progress.running[run.id] = Started(run, ids)
            clear_failure(run.config)
            jobs.append((run.config, EarlyStopping(run.config, run.rivals) if early_stopping and run.rivals else None))
        launcher.submit(jobs)


def beside_the_running(ready: list[PlannedRun], progress: Progress) -> list[PlannedRun]:
    """Of the runs that are ready, those that may start where runs share a device: one whose time is printed is started
    when nothing else is left and nothing runs, and nothing is started beside it.
    """
    if any(started.run.timed for started in progress.running.values()):
        return []
    return [run for run in ready if not run.timed] or ([] if progress.running else ready[:1])


def group_into_stacks(
    ready: Sequence[PlannedRun], progress: Progress, most: int | None, on_gpu: bool
) -> list[list[PlannedRun]]:
    """The runs in stacks, each of runs that one slot trains together.

    most: the most runs in a stack. None: on a GPU, which single runs of short texts leave idle, up to MAX_STACK runs
    and MAX_STACK_TOKENS tokens; on a CPU, which gains nothing, one. Stacks are kept so small that all slots get one. A
    run that has failed is tried again alone, and so is a run whose time the table prints.
    """
    share = math.ceil(len(ready) / progress.slots)
    stacks: list[list[PlannedRun]] = []
    open_stacks: dict[tuple | None, list[PlannedRun]] = {}
    for run in ready:
        config, key = run.config, None if run.timed or run.id in progress.failures else stack_key(run.config)
        tokens = config.batch_size * (config.method_options.virtual_tokens + config.max_source_len)
        fitting = min(MAX_STACK, MAX_STACK_TOKENS // tokens) if on_gpu and config.device != "cpu" else 1
        if key is None or key not in open_stacks or len(open_stacks[key]) >= min(share, most or fitting):
            stacks.append([])
            open_stacks[key] = stacks[-1]
        open_stacks[key].append(run)
    return stacks


def next_outcomes(launcher: Launcher, progress: Progress) -> list[tuple[str, Outcome]]:
    """Waits until a run has ended, and returns (run id, outcome) of each that has.

    Where another sweep is doing runs, it returns after POLL_SECONDS at the latest, perhaps with an empty list.
    """
    while not (ended := launcher.wait(POLL_SECONDS)) and progress.running and not progress.retry_times:
        pass
    if not ended and not progress.running:
        time.sleep(POLL_SECONDS)
    return ended


def take_outcome(run_id: str, outcome: Outcome, progress: Progress) -> bool:
    """Enters a run's outcome into `progress` and prints it.

    Returns False, and prints nothing, where another sweep is doing the run.
    """
    started = progress.running.pop(run_id)
    if outcome == BUSY:
        progress.retry_times[run_id] = time.monotonic() + POLL_SECONDS
        return False
    folder = started.run.config.results_dir
    record = read_record(folder, run_id)
    if outcome == STOPPED:
        print_status(f"{run_id}: stopped early")
    elif outcome is None and record is not None:
        progress.seconds.append((time.monotonic() - started.time) / len(started.stack))
        print_result(summary_line(record))
    else:
        reason = outcome or f"it ended, but its record is not in {folder}: do the machines share this folder?"
        progress.failures.setdefault(run_id, []).append(reason)
        alone = len(started.stack) == 1  # in a stack, the mistake may be another run's
        if len(progress.failures[run_id]) >= ATTEMPTS or (isinstance(outcome, Mistake) and alone):
            progress.failed[run_id] = reason
            write_failure(started.run.config, reason)
        again = "" if run_id in progress.failed else ", once more"
        print_status(f"{run_id}: failed{again}: {reason.splitlines()[0]}")
    return True
