"""Train one method on one task and write its run record.

python train.py --task rte --method adept --prompt_len 60 --bottleneck 10
python train.py --task movie_reviews --model smollm2-135m --method adept --prompt_len 7 --bottleneck 8 --steps 60
"""

import os
import sys

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # an unreachable hub is told in one line
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from adept.config import UserError, command_line, parse, resolve
from adept.results import find, record_path, table_line


def main(arguments: list[str]) -> int:
    try:
        flags, rest = parse(command_line(__doc__), arguments)
        config = resolve(flags, getattr(rest, "config", None))
        if (record := find(config.results_dir, config.run_id)) is None:
            from adept.loop import run

            record = run(config)
        else:
            print(f"already done: {record_path(config.results_dir, config.run_id)}", file=sys.stderr)
        print(table_line(record))
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing of this run is recorded", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
