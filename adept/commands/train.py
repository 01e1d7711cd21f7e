"""Trains one method on one task and writes its run record.

python train.py --task rte --method adept --prompt_len 60 --bottleneck 10
python train.py --task @superglue --method pt
python train.py --task rte --profile fast
torchrun --nproc_per_node 2 train.py --task rte
python train.py --task movie_reviews --model smollm2-135m --method adept --prompt_len 7 --bottleneck 8 --steps 60
"""

from __future__ import annotations

from pathlib import Path

from adept.base import distributed
from adept.base.console import print_result, print_status
from adept.base.errors import UserError
from adept.base.yaml_files import read_yaml
from adept.commands.main import print_error
from adept.config.command_line import add_rerun, command_line, parse
from adept.config.layers import resolve
from adept.config.run import RunConfig
from adept.data.dataset import with_steps
from adept.runs.comparison import accept
from adept.runs.layout import record_path
from adept.runs.record import finished_record, summary_line
from adept.runs.tracking import mirror_finished
from adept.tables.table_file import profile_flags
from adept.tasks import task_names


def main(arguments: list[str]) -> int:
    """Runs the task, or each task of the group, that the command line names."""
    distributed.initialize()
    parser = command_line(__doc__, prog="python train.py", arguments=arguments)
    add_rerun(parser)
    parser.add_argument("--profile", metavar="NAME", help="configs/profiles/NAME.yaml below the flags: 'fast' (bf16)")
    flags, rest = parse(parser, arguments)
    if "profile" in rest:
        flags = with_profile(rest.profile, flags)
    file, rerun = getattr(rest, "config", None), "rerun" in rest
    name = flags.get("task") or (read_yaml(Path(file)).get("task") if file else None)
    if not str(name).startswith("@"):
        return 0 if run_task(flags, file, rerun) else 2
    names = task_names(name)
    failures = [name for name in names if not run_task({**flags, "task": name}, file, rerun)]
    if failures:
        print_status(f"error: {len(failures)} of {len(names)} tasks did not run: {', '.join(failures)}")
    return 2 if failures else 0


def with_profile(name: str, flags: dict) -> dict:
    """The flags, with what the profile sets on this machine, which is printed."""
    found = profile_flags(name, flags)
    set_here = ", ".join(f"{option} = {value}" for option, value in sorted(found.items()))
    if distributed.RANK == 0:
        print_status(f"profile {name}: {set_here or 'changes nothing on this machine'}")
    return {**flags, **found}


def run_task(flags: dict, config_file: str | None, rerun: bool = False) -> bool:
    """Runs one task unless its record is there, and prints the record's line.

    rerun: a finished run that differs from what is asked is moved aside and made again.

    Returns False after a user's mistake, so that the other tasks of a group run.
    """
    try:
        config = with_steps(resolve(flags, config_file))
        record = distributed.on_main_process(lambda: find_finished(config, rerun))
        if record is None:
            from adept.training.loop import run

            record = run(config)
        else:
            print_status(f"already done: {record_path(config.results_dir, config.run_id)}")
        if distributed.RANK == 0:
            print_result(summary_line(record))
        return True
    except (UserError, OSError) as error:
        if distributed.WORLD > 1:  # the processes are no longer at the same step: none can begin the next task
            raise
        print_error(error)
        return False


def find_finished(config: RunConfig, rerun: bool) -> dict | None:
    """The record of the run that is asked for, mirrored to its tracker; None where it must be trained.

    Raises UserError where a finished run has this id but differs from what is asked.
    """
    record = finished_record(config.results_dir, config.run_id)
    if record is None or not accept(config, record, rerun=rerun):
        return None
    mirror_finished(config, record)
    return record
