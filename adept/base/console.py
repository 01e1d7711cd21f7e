"""What commands print: progress on stderr, results on stdout."""

from __future__ import annotations

import sys

from tqdm import tqdm

from adept.base import distributed


def print_status(text: str) -> None:
    """Prints one line on stderr, above the progress bar where there is one. Only the main process prints."""
    if distributed.RANK == 0:
        tqdm.write(text, file=sys.stderr)


def bar_interval() -> float:
    """Seconds between two states of a progress bar, at least: a log file needs no animation."""
    return 0.5 if sys.stderr.isatty() else 60.0


def progress_bar(total: int | None, unit: str, description: str | None = None) -> tqdm:
    """A bar on stderr of the main process for work that takes a while, which goes when it is closed."""
    interval = bar_interval()
    return tqdm(
        total=total, unit=unit, desc=description, mininterval=interval, delay=interval, leave=False,
        disable=distributed.RANK != 0,
    )  # fmt: skip


def print_result(text: str) -> None:
    """Prints what the command was asked for on stdout, without delay."""
    print(text, flush=True)
