"""Train one method on one task and write its run record.

python train.py --task rte --method adept --prompt_len 60 --bottleneck 10
python train.py --task @superglue --method pt
python train.py --task movie_reviews --model smollm2-135m --method adept --prompt_len 7 --bottleneck 8 --steps 60
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # an unreachable hub is told in one line
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from adept.config import UserError, command_line, parse, read_yaml, resolve
from adept.results import finished, record_path, table_line
from adept.stop import told
from adept.tasks import task_names


def main(arguments: list[str]) -> int:
    try:
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
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        return told(stop)


def succeeds(flags: dict, config_file: str | None) -> bool:
    """Runs one task, or finds it done, and prints its line. A user's mistake is told in one line, so that a group's other tasks run."""
    try:
        config = resolve(flags, config_file)
        if (record := finished(config.results_dir, config.run_id)) is None:
            from adept.loop import run

            record = run(config)
        else:
            print(f"already done: {record_path(config.results_dir, config.run_id)}", file=sys.stderr)
        print(table_line(record), flush=True)
        return True
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
