"""Carries out one stack of runs in this process, and keeps its log."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from adept.base.errors import UserError, first_line
from adept.config.run import RunConfig
from adept.runs.claim import RunClaimed
from adept.runs.layout import run_folder
from adept.tables.early_stopping import is_stopped
from adept.tables.launchers.launcher import BUSY, STOPPED, Job, Mistake, Outcome
from adept.training.loop import train_runs
from adept.training.memory import OutOfMemoryInEvaluation, OutOfMemoryInTraining
from adept.training.run import EarlyStopped

LOG = "log.txt"
"""In the run's folder: what the run would show on a terminal."""

DETAIL_LINES = 4
"""How many lines of a failed run's traceback or log its outcome holds."""


def run_stack(stack: Sequence[Job]) -> list[Outcome]:
    """Trains the runs of a stack together. Returns the outcome of each.

    Raises Interrupted (a KeyboardInterrupt) for a signal, when the runs have saved their training.
    """
    # Another sweep may have stopped a run early since this one planned it.
    jobs = [(config, rule) for config, rule in stack if rule is None or not is_stopped(config)]
    ends = zip(jobs, train_runs(jobs), strict=True)
    outcomes = {config.run_id: outcome_of(end) for (config, _), end in ends}
    return [outcomes.get(config.run_id, STOPPED) for config, _ in stack]


def outcome_of(end: dict | Exception) -> Outcome:
    """The outcome of a run that ended with a record or with an exception.

    A user's mistake gives one line; another exception also gives the end of its traceback, which is printed in full.
    """
    match end:
        case RunClaimed():
            return BUSY
        case EarlyStopped():
            return STOPPED
        case OutOfMemoryInTraining() | OutOfMemoryInEvaluation():  # alone it may fit
            return str(end)
        case UserError():
            return Mistake(end)
        case Exception():
            traceback.print_exception(end)
            details = "".join(traceback.format_exception(end)).splitlines()[-DETAIL_LINES:-1]
            return "\n".join([f"{type(end).__name__}: {first_line(end)}", *details])
    return None


# The log --------------------------------------------------------------------------------------------------------------


def log_path(config: RunConfig) -> Path:
    """The run's log. The runs of a stack share that of the first."""
    return run_folder(config.results_dir, config.run_id) / LOG


def run_stack_logged(stack: Sequence[Job]) -> list[Outcome]:
    """run_stack(), while all that this process prints is appended to the log."""
    path = log_path(stack[0][0])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab")  # noqa: SIM115 - closed below
    except OSError as error:
        return [f"cannot write {path}: {error.strerror}"] * len(stack)
    with file, redirect_output(file):
        return run_stack(stack)


@contextlib.contextmanager
def redirect_output(file: BinaryIO) -> Iterator[None]:
    """Inside, stdout and stderr go to the file: by file descriptor, so that C libraries and children are included."""
    saved = {number: os.dup(number) for number in (1, 2)}
    flush()
    for number in saved:
        os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        flush()
        for number, copy in saved.items():
            os.dup2(copy, number)
            os.close(copy)


def flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


@dataclasses.dataclass
class RunningStack:
    """A stack that another process is doing."""

    stack: Sequence[Job]
    log_size: int
    """In bytes, when the stack was submitted."""

    @classmethod
    def of(cls, stack: Sequence[Job]) -> RunningStack:
        path = log_path(stack[0][0])
        return cls(stack, path.stat().st_size if path.is_file() else 0)

    def died(self, reason: str) -> list[Outcome]:
        """The outcomes of the runs after their process has died: the reason, and the last lines that it logged."""
        try:
            text = log_path(self.stack[0][0]).read_bytes()[self.log_size :].decode("utf-8", errors="replace")
        except OSError:
            text = ""
        # What follows the last \r of a line is a progress bar's last state.
        lines = [line.rpartition("\r")[2].rstrip() for line in text.rstrip().split("\n")]
        return ["\n".join([reason, *[line for line in lines if line][-DETAIL_LINES:]])] * len(self.stack)
