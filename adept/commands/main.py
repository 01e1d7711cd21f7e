"""`python -m adept COMMAND`: runs the command's file, and turns an error into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from adept.base import distributed
from adept.base.console import print_result
from adept.base.errors import UserError, error_text, nearest

COMMANDS = {
    "train": "trains one method on one task, or on a group of tasks",
    "sweep": "carries out a table's runs and prints the table",
    "report": "prints a table from the records that are there; with --all, writes the page",
    "predict": "answers rows, lines or a prompt with trained runs",
    "export": "writes a trained run as a folder for transformers or PEFT alone",
    "push": "puts a trained run on the Hugging Face hub, with its card",
    "bench": "times training and evaluation beside the released code's way, counts memory",
    "dashboard": "sends a report of a table's tracked runs to wandb",
    "theory": "measures the first layer's attention (Section 3.4)",
    "tasks": "prints the tables of tasks",
    "methods": "prints every method with its options and parameter counts",
    "fetch": "fetches the bundled model and data set ahead of time",
}
"""{module of adept.commands with main(arguments) -> exit code: what it does}."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command that the first word names. Returns the exit code.

    A user's mistake is printed as one line on stderr; its code is 2. The code of a signal is 128 + its number.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # our one line says that the hub is unreachable
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Compute threads that wait for each other would spin, and take the core from the one that is waited for where
    # another program is busy. Read when torch is imported, which the commands do.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        name, *rest = arguments or ["--help"]
        if name in ("-h", "--help"):
            print_result("usage: python -m adept COMMAND [--help]\n")
            print_result("\n".join(f"  {command:9} {text}" for command, text in COMMANDS.items()))
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
    """Prints the one line of a mistake. Of several processes that fail alike, only the first prints it."""
    if line := distributed.message_of_main_process(f"error: {error_text(error)}"):
        print(line, file=sys.stderr, flush=True)


def report_interruption(error: KeyboardInterrupt) -> int:
    """Prints what is saved, and returns the exit code of the signal."""
    if distributed.RANK == 0:
        default = "interrupted; finished runs are recorded, the same command goes on from the last checkpoint"
        print(str(error) or default, file=sys.stderr)
    return getattr(error, "code", 130)


def console_script() -> None:
    """The command `adept` of an installed package."""
    distributed.shutdown(main(sys.argv[1:]))
