"""Train one method on one task and write its run record.

python train.py --task rte --method adept --prompt_len 60 --bottleneck 10
python train.py --task @superglue --method pt
torchrun --nproc_per_node 2 train.py --task rte
python train.py --task movie_reviews --model smollm2-135m --method adept --prompt_len 7 --bottleneck 8 --steps 60
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # an unreachable hub is told in one line
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from adept import parallel
from adept.config import UserError, command_line, parse, read_yaml, reason, resolve
from adept.results import finished, record_path, table_line
from adept.stop import told
from adept.tasks import task_names


def main(arguments: list[str]) -> int:
    try:
        parallel.start()
        flags, rest = parse(command_line(__doc__), arguments)
        file = getattr(rest, "config", None)
        word = flags.get("task") or (read_yaml(Path(file)).get("task") if file else None)
        if not str(word).startswith("@"):
            return 0 if succeeds(flags, file) else 2
        names = task_names(word)
        failures = [name for name in names if not succeeds({**flags, "task": name}, file)]
        if failures:
            print(f"error: {len(failures)} of {len(names)} tasks did not run: {', '.join(failures)}", file=sys.stderr)
        return 2 if failures else 0
    except (UserError, OSError) as error:
        tell(error)
        return 2
    except KeyboardInterrupt as stop:
        return told(stop)


def succeeds(flags: dict, config_file: str | None) -> bool:
    """Runs one task, or finds it done, and prints its line. A user's mistake is told in one line, so that a group's other tasks run."""
    try:
        config = resolve(flags, config_file)
        if (record := parallel.first(lambda: finished(config.results_dir, config.run_id))) is None:
            from adept.loop import run

            record = run(config)
        elif parallel.RANK == 0:
            print(f"already done: {record_path(config.results_dir, config.run_id)}", file=sys.stderr)
        if parallel.RANK == 0:
            print(table_line(record), flush=True)
        return True
    except (UserError, OSError) as error:
        if parallel.WORLD > 1:  # the others may be anywhere: none can go on to the next task alone
            raise
        tell(error)
        return False


def tell(error: UserError | OSError) -> None:
    if line := parallel.heard(f"error: {reason(error)}"):
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    parallel.leave(main(sys.argv[1:]))
