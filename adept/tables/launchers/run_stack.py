"""One stack of runs in this process, its outcomes and its log."""

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
from adept.tables.launchers.launcher import BUSY, STOPPED, Job, Outcome
from adept.training.loop import train_runs
from adept.training.run import EarlyStopped

LOG = "log.txt"
"""Beside the run's other files: what it would have shown on a terminal of its own."""


LAST_LINES = 4
"""Of a failed run's traceback or log, shown with it."""


def run_stack(stack: Sequence[Job]) -> list[Outcome]:
    """The runs of a stack from start to record. A failure's outcome ends with its traceback, a user's mistake in one
    line.

    Raises Interrupted (a KeyboardInterrupt) for a signal, with the training saved.
    """
    remaining = [
        (config, stop) for config, stop in stack if not (stop is not None and is_stopped(config))
    ]  # since it was planned, by another
    ended = {config.run_id: outcome_of(end) for (config, _), end in zip(remaining, train_runs(remaining), strict=True)}
    return [ended.get(config.run_id, STOPPED) for config, _ in stack]


def outcome_of(end: dict | Exception) -> Outcome:
    match end:
        case RunClaimed():
            return BUSY
        case EarlyStopped():
            return STOPPED
        case UserError():
            return str(end)
        case Exception():
            traceback.print_exception(end)
            return "\n".join(
                [
                    f"{type(end).__name__}: {first_line(end)}",
                    *"".join(traceback.format_exception(end)).splitlines()[-LAST_LINES:-1],
                ]
            )
    return None


def log_path(config: RunConfig) -> Path:
    return run_folder(config.results_dir, config.run_id) / LOG


def run_stack_logged(stack: Sequence[Job]) -> list[Outcome]:
    """run_stack(), and whatever this process prints goes to the end of the first run's log."""
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
    """Inside, what this process prints goes to the file. By file descriptor, so that what libraries in C print is there
    too.
    """
    kept = {number: os.dup(number) for number in (1, 2)}
    flush()
    for number in kept:
        os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        flush()
        for number, before in kept.items():
            os.dup2(before, number)
            os.close(before)


def flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


@dataclasses.dataclass
class RunningStack:
    """A stack that a worker has. start: the size of its log when it was handed over."""

    stack: Sequence[Job]
    start: int

    @classmethod
    def of(cls, stack: Sequence[Job]) -> RunningStack:
        path = log_path(stack[0][0])
        return cls(stack, path.stat().st_size if path.is_file() else 0)

    def died(self, how: str) -> list[Outcome]:
        """The outcomes of runs whose process is gone, with the last lines of its log."""
        try:
            text = log_path(self.stack[0][0]).read_bytes()[self.start :].decode("utf-8", errors="replace")
        except OSError:
            text = ""
        shown = [
            line.rpartition("\r")[2].rstrip() for line in text.rstrip().split("\n")
        ]  # a progress bar as it was last
        return ["\n".join([how, *[line for line in shown if line][-LAST_LINES:]])] * len(self.stack)
