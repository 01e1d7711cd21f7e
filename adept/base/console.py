"""What commands print: progress on stderr, results on stdout."""

from __future__ import annotations

import sys

from tqdm import tqdm

from adept.base import distributed


def print_status(text: str) -> None:
    """Prints one line on stderr, above the progress bar where there is one. Only the main process prints."""
    if distributed.RANK == 0:
        tqdm.write(text, file=sys.stderr)


def print_result(text: str) -> None:
    """Prints what the command was asked for on stdout, without delay."""
    print(text, flush=True)
