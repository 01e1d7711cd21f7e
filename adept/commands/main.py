"""`python -m adept COMMAND`: finds the command's file, runs it, and turns what goes wrong into one line and an exit
code.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from adept.base import distributed
from adept.base.errors import UserError, error_text, nearest

COMMANDS = {
    "train": "trains one method on one task, or on a group of tasks",
    "sweep": "carries out a table's runs and prints the table",
    "report": "prints a table from the records that are there; with --all, writes the page",
    "bench": "times training and evaluation beside the released code's way, counts memory",
    "theory": "measures the first layer's attention (Section 3.4)",
    "tasks": "prints the tables of tasks",
    "methods": "prints every method with its options and parameter counts",
    "fetch": "fetches the bundled model and data set ahead of time",
}
"""One module of adept.commands each, with main(arguments) -> exit code."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command that the first word names. Returns the exit code: 2 after a mistake, which costs one line."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # an unreachable hub is told in one line
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        name, *rest = arguments or ["--help"]
        if name in ("-h", "--help"):
            print("usage: python -m adept COMMAND [--help]\n")
            print("\n".join(f"  {command:8} {text}" for command, text in COMMANDS.items()))
            return 0
        if name not in COMMANDS:
            raise UserError(f"unknown command '{name}'; {nearest(name, COMMANDS)}")
        return importlib.import_module(f"adept.commands.{name}").main(rest)
    except (UserError, OSError) as error:
        print_error(error)
        return 2
    except KeyboardInterrupt as error:
        return report_interruption(error)


def print_error(error: UserError | OSError) -> None:
    """The one line of a mistake. Of several processes that fail alike the first alone prints it."""
    if line := distributed.message_of_main_process(f"error: {error_text(error)}"):
        print(line, file=sys.stderr, flush=True)


def report_interruption(error: KeyboardInterrupt) -> int:
    """Prints what became of the run and returns the exit code of the signal (128 + its number)."""
    if distributed.RANK == 0:
        lost = "interrupted; finished runs are recorded, the same command goes on from the last checkpoint"
        print(str(error) or lost, file=sys.stderr)
    return getattr(error, "code", 130)


def console_script() -> None:
    """The command `adept`."""
    distributed.shutdown(main(sys.argv[1:]))
