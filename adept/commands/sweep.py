"""Carries out whatever of a table's runs is not done, and prints the table. Finished runs skip themselves.

python -m adept sweep configs/table12.yaml [--dry_run] [--profile NAME] [--launch local --workers 4] [--OPTION VALUE]
python -m adept sweep configs/table3.yaml --only task=rte --only method=adept      a part of a table
python -m adept sweep --all [--profile NAME] ...      all tables, then results/README.md and the page

Options override those of all runs that have them; the table's heading and the names of its files say so.
adept/tables/table_file.py explains the keys of the file.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from adept.base.console import print_result, print_status
from adept.base.errors import UserError
from adept.commands.table_arguments import add_all, named_tables, table_parser
from adept.config.command_line import OneLineParser, add_rerun, parse
from adept.tables.estimate import estimate, train_command
from adept.tables.launchers.in_process import InProcess
from adept.tables.launchers.launcher import Launcher
from adept.tables.launchers.local import Local
from adept.tables.launchers.ray_cluster import Ray
from adept.tables.launchers.slurm import submit_to_slurm
from adept.tables.manifest import write_manifest
from adept.tables.publish import publish_all, publish_table
from adept.tables.sweep import all_runs, carry_out
from adept.tables.table import Table
from adept.training.run_record import describe_device
from adept.training.session import pick_device
from adept.training.signals import Signals

LAUNCHERS_OF = {
    "workers": ("local", "ray", "slurm"),
    "ray_address": ("ray",),
    "gpus_per_run": ("ray",),
    "slurm_options": ("slurm",),
    "slurm_setup": ("slurm",),
}
"""{flag: the launchers that read it}."""


def main(arguments: list[str]) -> int:
    """Runs, lists (--dry_run) or submits (--launch slurm) the runs of the tables that the command line names."""
    overrides, rest = parse(sweep_parser(arguments), arguments)
    check_launch(rest)
    tables = named_tables(rest, overrides)
    if "dry_run" in rest:
        return dry_run(tables)
    count_done(tables)  # reads every record: one that is none is refused before anything is written
    for table in tables:
        write_manifest(table)
    if getattr(rest, "launch", None) == "slurm":
        return submit(tables, rest, arguments)
    failures = run_tables(tables, rest)
    for table in tables:
        print_result(publish_table(table))
    if "all" in rest:
        print_result(publish_all(tables))
    return print_failures(failures, tables)


def count_done(tables: Sequence[Table]) -> int:
    """The number of runs that are done. Raises UserError for a file that is no record."""
    return sum(run.done for run in all_runs(tables))


def sweep_parser(arguments: Sequence[str]) -> OneLineParser:
    """The parser of `sweep`. arguments: the command line, which chooses what --help lists."""
    parser = table_parser("sweep", __doc__, arguments)
    add_all(parser)
    add_rerun(parser)
    parser.add_argument("--dry_run", action="store_true", help="print the commands, their number and the hours")
    parser.add_argument(
        "--early_stopping",
        action="store_true",
        help="stop a searched run at 1/9 and 1/3 of its steps if not in its cell's best third",
    )
    parser.add_argument(
        "--launch", choices=("here", "local", "ray", "slurm"), help="in this process, in processes, on a cluster"
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="local: processes (one a GPU); slurm: elements of the array (8); ray: runs at a time",
    )
    parser.add_argument(
        "--ray_address", help="the cluster's address, 'auto' for the one this machine belongs to; none: a local one"
    )
    parser.add_argument(
        "--gpus_per_run", type=float, help="ray: 0.25 puts four runs on one GPU [1 where there are GPUs]"
    )
    parser.add_argument(
        "--stack",
        help="runs of a task and model that are trained together on one model; auto: on GPUs, as many as help [auto]",
    )
    parser.add_argument(
        "--slurm_options", help='sbatch\'s own: --slurm_options="--partition=gpu --gres=gpu:1 --time=24:00:00"'
    )
    parser.add_argument(
        "--slurm_setup",
        type=Path,
        help="a file that each element reads first: module load, conda activate, ADEPT_PREFIX='apptainer exec IMAGE'",
    )
    return parser


def check_launch(rest: argparse.Namespace) -> None:
    """Raises UserError for flags of launchers that contradict each other or are out of range."""
    kind = getattr(rest, "launch", "local")
    for name, kinds in LAUNCHERS_OF.items():
        if name in rest and kind not in kinds:
            raise UserError(f"--{name} has no effect with --launch {kind}; it is for --launch {' and '.join(kinds)}")
    if getattr(rest, "workers", 1) < 1:
        raise UserError(f"--workers must be a whole number >= 1, not {rest.workers}")
    if str(getattr(rest, "stack", "auto")) != "auto" and not (rest.stack.isdigit() and int(rest.stack)):
        raise UserError(f"--stack must be a whole number >= 1 or auto, not {rest.stack}")
    if getattr(rest, "gpus_per_run", 0) < 0:
        raise UserError(f"--gpus_per_run must be a number >= 0, not {rest.gpus_per_run:g}")


def dry_run(tables: list[Table]) -> int:
    """Prints the command of every run, and on stderr their number and the hours that they take."""
    runs = all_runs(tables)
    for run in runs:
        pending = "  # start or configuration chosen by validation when the runs before are done" if run.pending else ""
        print_result(train_command(run.flags) + pending)
    print_status(estimate(runs, describe_device(pick_device("auto"))))
    return 0


def submit(tables: list[Table], rest: argparse.Namespace, arguments: list[str]) -> int:
    """Submits a Slurm array whose elements each carry out this same command, one run at a time."""
    name, folder = "all_tables" if len(tables) > 1 else tables[0].name, tables[0].results_dir / "slurm"
    words = without_flags(arguments, ("--launch", "--workers", "--slurm_options", "--slurm_setup"))
    workers, options, setup = (getattr(rest, name, None) for name in ("workers", "slurm_options", "slurm_setup"))
    print_result(submit_to_slurm(name, words, workers or 8, options or "", folder, setup))
    return 0


def run_tables(tables: list[Table], rest: argparse.Namespace) -> dict[str, str]:
    """Carries out the runs; returns {run id: why} of those that failed.

    Raises Interrupted after a signal, when every run has saved its training.
    """
    stack = getattr(rest, "stack", "auto")
    with contextlib.closing(make_launcher(rest)) as launcher, Signals() as signals, signals.interrupt_at_once():
        try:
            return carry_out(
                tables,
                launcher,
                early_stopping="early_stopping" in rest,
                stack=None if stack == "auto" else int(stack),
                rerun="rerun" in rest,
                waits="SLURM_ARRAY_TASK_ID" not in os.environ,  # an element that waits would hold a GPU
            )
        except KeyboardInterrupt:  # Ray raises one of its own: say which signal it was
            signals.check()
            raise


def make_launcher(rest: argparse.Namespace) -> Launcher:
    """The launcher that the command line asks for.

    Without --launch and --workers: a process for each GPU, or this process on a machine with one GPU or none.
    """
    kind, workers = getattr(rest, "launch", None), getattr(rest, "workers", None)
    if kind == "ray":
        return Ray(getattr(rest, "ray_address", None), getattr(rest, "gpus_per_run", None), workers)
    gpus = count_gpus()
    workers = workers or max(1, gpus)
    return InProcess() if kind == "here" or (kind is None and workers == 1) else Local(workers, gpus)


def count_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def print_failures(failures: Mapping[str, str], tables: Sequence[Table]) -> int:
    """Prints which runs failed and why, and how many cannot be chosen because of them. Returns the exit code."""
    for run_id, outcome in failures.items():
        reason, *details = outcome.splitlines()
        print_status(f"error: {run_id} failed: {reason}")
        for line in details:
            print_status(f"    {line}")
    if pending := sum(run.pending for run in all_runs(tables)):
        print_status(f"error: {pending} runs wait for those that failed: validation cannot choose before")
    return 2 if failures else 0


def without_flags(arguments: list[str], flags: tuple[str, ...]) -> list[str]:
    """The command line without these flags and their values."""
    remaining, is_value = [], False
    for word in arguments:
        if not is_value and word.split("=")[0] not in flags:
            remaining.append(word)
        is_value = word in flags
    return remaining
