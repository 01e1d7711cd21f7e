"""Trains one method on one task and writes its run record.

python train.py --task rte --method adept --prompt_len 60 --bottleneck 10
python train.py --task @superglue --method pt
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
from adept.config.command_line import command_line, parse
from adept.config.layers import resolve
from adept.runs.layout import record_path
from adept.runs.record import finished_record, summary_line
from adept.tasks import task_names


def main(arguments: list[str]) -> int:
    """Runs the task, or each task of the group, that the command line names."""
    distributed.initialize()
    flags, rest = parse(command_line(__doc__, prog="python train.py", arguments=arguments), arguments)
    file = getattr(rest, "config", None)
    name = flags.get("task") or (read_yaml(Path(file)).get("task") if file else None)
    if not str(name).startswith("@"):
        return 0 if run_task(flags, file) else 2
    names = task_names(name)
    failures = [name for name in names if not run_task({**flags, "task": name}, file)]
    if failures:
        print_status(f"error: {len(failures)} of {len(names)} tasks did not run: {', '.join(failures)}")
    return 2 if failures else 0


def run_task(flags: dict, config_file: str | None) -> bool:
    """Runs one task unless its record is there, and prints the record's line.

    Returns False after a user's mistake, so that the other tasks of a group run.
    """
    try:
        config = resolve(flags, config_file)
        record = distributed.on_main_process(lambda: finished_record(config.results_dir, config.run_id))
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
