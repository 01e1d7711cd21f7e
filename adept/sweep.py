"""A table's YAML file -> RunConfigs -> runs. Finished runs skip themselves.

python -m adept.sweep configs/quickstart.yaml [--dry_run] [--FIELD VALUE ...]     fields override all runs that use them

The file: `title`, `note`, `fields` (of all runs), `grid` (a list of runs), `rows` and `columns` (the RunConfig fields that the
report lays out; the best of what remains, seeds apart, is chosen by validation). Where a value is a list, every value is run.
"""

from __future__ import annotations

import itertools
import math
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adept.config import FIELDS, RunConfig, UserError, command_line, nearest, parse, read_yaml, reason, resolve
from adept.methods import find_method, method_specific_fields
from adept.tasks import find_task, task_names, task_specific_fields


@dataclass(frozen=True)
class Table:
    """A table's YAML file with all its runs resolved."""

    name: str
    title: str
    note: str
    rows: str
    columns: str
    configs: list[RunConfig]
    commands: list[str]
    overrides: Mapping[str, Any]


MOST_RUNS = 10_000

KEYS = {"title": str, "note": str, "fields": dict, "grid": list, "rows": str, "columns": str}


def load_table(path: Path, overrides: Mapping[str, Any]) -> Table:
    """Reads and expands a table file. Raises UserError for unknown keys, wrong types and runs that do not resolve."""
    content = {"note": "", "fields": {}, "rows": "method", "columns": "task"} | read_yaml(path)
    for key, value in content.items():
        if key not in KEYS:
            raise UserError(f"{path}: unknown key '{key}'; {nearest(str(key), KEYS)}")
        if not isinstance(value, KEYS[key]):
            raise UserError(f"{path}: '{key}' must be a {KEYS[key].__name__}, not {value!r}")
    for key in ("title", "grid"):
        if not content.get(key):
            raise UserError(f"{path}: '{key}' is missing")
    for axis in (content["rows"], content["columns"]):
        if axis not in FIELDS:
            raise UserError(f"{path}: '{axis}' is no RunConfig field; {nearest(axis, FIELDS)}")
    runs: dict[str, tuple[RunConfig, dict]] = {}  # by run id: two entries may name one run
    for entry in content["grid"]:
        if not isinstance(entry, dict):
            raise UserError(f"{path}: each entry of 'grid' must hold {{field: value}}, not {entry!r}")
        for flags in expand({**content["fields"], **entry}, overrides, str(path)):
            config = resolve(flags, source=str(path))
            runs.setdefault(config.run_id, (config, flags))
    for name, value in overrides.items():
        if not any(name in flags for _, flags in runs.values()):
            raise UserError(f"--{name} {value} has no effect on any run of {path}")
    return Table(
        name=path.stem,
        title=content["title"],
        note=content["note"],
        rows=content["rows"],
        columns=content["columns"],
        configs=[config for config, _ in runs.values()],
        commands=[command(flags) for _, flags in runs.values()],
        overrides=overrides,
    )


def command(flags: Mapping[str, Any]) -> str:
    """The train.py command of one run."""
    words = [f"--{name} {'none' if value is None else shlex.quote(str(value))}" for name, value in flags.items()]
    return " ".join(["python train.py", *words])


def expand(entry: Mapping[str, Any], overrides: Mapping[str, Any], source: str = "grid") -> list[dict[str, Any]]:
    """One grid entry -> flags of each of its runs; "@glue" is each of its tasks.

    An override or common field that the run's method or task does not use is left out.

    Raises UserError naming `source` for a value that is neither plain nor a list of plain ones.
    """
    lists = {name: value if isinstance(value, list) else [value] for name, value in {**entry, **overrides}.items()}
    for name, values in lists.items():
        if not values or any(isinstance(value, (list, dict)) for value in values):
            raise UserError(f"{source}: '{name}' must be a value or a list of values, not {entry.get(name)!r}")
    if "task" in lists:
        lists["task"] = [name for value in lists["task"] for name in task_names(str(value))]
    if (count := math.prod(map(len, lists.values()))) > MOST_RUNS:
        raise UserError(f"{source}: one entry of the grid stands for {count:,} runs; at most {MOST_RUNS:,} are started")
    specific = method_specific_fields() | task_specific_fields()
    runs = []
    for values in itertools.product(*lists.values()):
        flags = dict(zip(lists, values, strict=True))
        used = {*find_method(str(flags.get("method", FIELDS["method"].default))).fields}
        if flags.get("task_file") is None and "task" in flags:
            used |= {*find_task(str(flags["task"])).switches}
        runs.append({name: value for name, value in flags.items() if name not in specific or name in used})
    return runs


def main(arguments: list[str]) -> int:
    parser = command_line(__doc__, config_file=False)
    parser.add_argument("table", type=Path, help="configs/<table>.yaml")
    parser.add_argument("--dry_run", action="store_true", help="print the commands and their number")
    try:
        overrides, rest = parse(parser, arguments)
        table = load_table(rest.table, overrides)
        if "dry_run" in rest:
            print("\n".join(table.commands))
            print(f"{len(table.commands)} runs", file=sys.stderr)
            return 0
        from adept import loop, results

        for number, config in enumerate(table.configs, 1):
            done = results.find(config.results_dir, config.run_id)
            print(f"[{number}/{len(table.configs)}] {config.run_id}{' (already done)' if done else ''}", file=sys.stderr)
            print(results.table_line(done or loop.run(config)), flush=True)
        return 0
    except (UserError, OSError) as error:
        print(f"error: {reason(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: finished runs are recorded, the same command goes on from there", file=sys.stderr)
        return 130


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main(sys.argv[1:]))
