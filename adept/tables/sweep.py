"""Carries out the runs of tables."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from adept.base.console import print_result, print_status
from adept.runs.record import finished_record, read_record, summary_line
from adept.tables.early_stopping import EarlyStopping, clear_stop
from adept.tables.launchers.launcher import BUSY, STOPPED, Launcher, Outcome
from adept.tables.table import PlannedRun, Table
from adept.training.stack import stack_key

ATTEMPTS = 2
"""A failed run is tried once more, then listed."""


POLL_SECONDS = 5.0
"""Between looks at runs that another sweep is doing."""


@dataclass(frozen=True)
class Started:
    run: PlannedRun
    stack: frozenset[str]  # run ids that were started together
    at: float = field(default_factory=time.monotonic)


@dataclass
class Progress:
    """What a sweep has done so far."""

    slots: int
    running: dict[str, Started] = field(default_factory=dict)  # by run id
    elsewhere: dict[str, float] = field(
        default_factory=dict
    )  # run id -> when to look again whether another sweep is done with it
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

    def line(self, runs: list[PlannedRun]) -> str:
        """done, running, failed, left and the time to go, which supposes that runs take as long as those that this
        sweep finished.
        """
        done, stopped = sum(run.record is not None for run in runs), sum(run.stopped for run in runs)
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
    return (
        f"{minutes // 60} h {minutes % 60} min"
        if minutes >= 60
        else f"{minutes} min"
        if minutes
        else f"{round(seconds)} s"
    )


def all_runs(tables: Sequence[Table]) -> list[PlannedRun]:
    """The runs of all tables as far as finished runs decide them now, each once."""
    return list({(run.id, run.pending): run for table in tables for run in table.runs()}.values())


STACKED_TOKENS = 65_536
"""A stack's step has at most so many, counted at the longest sources; memory decides where it is less
(adept/training/loop.py).
"""


MOST_STACKED = 8


def group_into_stacks(
    ready: Sequence[PlannedRun], progress: Progress, most: int | None, on_gpu: bool
) -> list[list[PlannedRun]]:
    """`ready` in stacks of runs that one slot takes together, at most `most` each.

    None: as many as a GPU, which single runs of short texts leave idle, gets work for; one on a CPU, which gains
    nothing. No more than keep all slots busy, and what has failed is tried again alone.
    """
    share = -(-len(ready) // progress.slots)
    made: list[list[PlannedRun]] = []
    open_stacks: dict[tuple, list[PlannedRun]] = {}
    for run in ready:
        config, key = run.config, None if run.id in progress.failures else stack_key(run.config)
        tokens = config.batch_size * (config.method_options.virtual_tokens + config.max_source_len)
        fitting = min(MOST_STACKED, STACKED_TOKENS // tokens) if on_gpu and config.device != "cpu" else 1
        if key is None or len(open_stacks.get(key, ())) >= min(share, most or fitting) or key not in open_stacks:
            made.append([])
            open_stacks[key] = made[-1]
        open_stacks[key].append(run)
    return made


def carry_out(
    tables: Sequence[Table], launcher: Launcher, *, early_stopping: bool = False, stack: int | None = 1
) -> dict[str, str]:
    """Runs whatever of the tables is not done, as finished runs decide it, until nothing more can be done.

    stack: the most runs that are trained together on one model; None: as many as help where the launcher is. Returns
    {run id: why} of the runs that failed twice. A run that another sweep on the same results folder is doing is waited
    for.
    """
    runs, progress = all_runs(tables), Progress(launcher.slots)
    if not early_stopping:
        for run in runs:
            clear_stop(run.config)
    news = True
    while True:
        undone = [
            run
            for run in runs
            if not (run.pending or run.done or run.id in progress.failed or run.id in progress.running)
        ]
        ready = [run for run in undone if progress.elsewhere.get(run.id, 0) <= time.monotonic()]
        for together in group_into_stacks(ready, progress, stack, launcher.on_gpu)[: launcher.slots - progress.busy]:
            ids = frozenset(run.id for run in together)
            for run in together:
                progress.elsewhere.pop(run.id, None)
                progress.running[run.id] = Started(run, ids)
            judges = [
                EarlyStopping(run.config, run.rivals) if early_stopping and run.rivals else None for run in together
            ]
            launcher.submit([(run.config, judge) for run, judge in zip(together, judges, strict=True)])
        if not undone and not progress.running:
            print_status(progress.line(runs))
            for run in runs:
                if run.record is not None:
                    finished_record(
                        run.config.results_dir, run.id
                    )  # tidies up after a process that was killed when the record stood
            return progress.failed
        if news:
            print_status(progress.line(runs))
        while not (ended := launcher.wait(POLL_SECONDS)) and progress.running and not progress.elsewhere:
            pass
        if not ended and not progress.running:
            time.sleep(POLL_SECONDS)
        news = sum(take_outcome(run_id, outcome, progress) for run_id, outcome in ended) > 0
        runs = all_runs(tables)


def take_outcome(run_id: str, outcome: Outcome, progress: Progress) -> bool:
    """Takes a run's outcome into `progress` and prints it; False where another sweep has the run, so that nothing is
    new.
    """
    started = progress.running.pop(run_id)
    if outcome == BUSY:
        progress.elsewhere[run_id] = time.monotonic() + POLL_SECONDS
        return False
    folder = started.run.config.results_dir
    record = read_record(folder, run_id)
    if outcome == STOPPED:
        print_status(f"{run_id}: stopped early")
    elif outcome is None and record is not None:
        progress.seconds.append((time.monotonic() - started.at) / len(started.stack))
        print_result(summary_line(record))
    else:
        outcome = outcome or f"it ended, but its record is not in {folder}: do the machines share this folder?"
        progress.failures.setdefault(run_id, []).append(outcome)
        again = "" if run_id in progress.failed else ", once more"
        print_status(f"{run_id}: failed{again}: {outcome.splitlines()[0]}")
    return True
