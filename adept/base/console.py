"""Lines for whoever watches a command."""

from __future__ import annotations

import sys

from tqdm import tqdm

from adept.base import distributed


def print_status(text: str) -> None:
    """One line on stderr, above the progress bar where there is one. Of several processes the first alone prints."""
    if distributed.RANK == 0:
        tqdm.write(text, file=sys.stderr)


def print_result(text: str) -> None:
    """One line on stdout, at once: what a command was asked for."""
    print(text, flush=True)
