"""Tables whose runs take a second, and what their results folder holds."""

import contextlib
import json
import time
from pathlib import Path

from adept.commands.main import main
from adept.runs.layout import run_folder
from adept.tables.table import PlannedRun, Table
from adept.tables.table_file import load_table

FIELDS = {
    "model": "tiny-t5", "data_dir": "fixtures", "task": "rte", "method": "adept", "prompt_len": 3, "bottleneck": 2,
    "device": "cpu", "steps": 4, "eval_every": 2, "batch_size": 2, "eval_rows": 4, "max_source_len": 32,
    "max_new_tokens": 2, "scoring": "likelihood",
}  # fmt: skip


def write_table(folder: Path, grid: list[dict], rows: str = "prompt_lr", seeds: tuple = (), **fields) -> Path:
    """The file of a table with this grid. fields: of all runs, in place of FIELDS."""
    file = folder / "made_up.yaml"
    content = {"title": "Made up", "fields": {**FIELDS, **fields}, "grid": grid, "rows": rows, "seeds": list(seeds)}
    file.write_text(json.dumps(content))  # JSON is YAML
    return file


def sweep(file: Path, *words: str) -> int:
    """The exit code of `python -m adept sweep` on the table, with its results beside the file."""
    return main(["sweep", str(file), "--results_dir", str(file.parent / "results"), *words])


def load(file: Path) -> Table:
    return load_table(file, {"results_dir": str(file.parent / "results")})


def files(file: Path, name: str) -> list[Path]:
    """The files of this name in the folders of the table's runs."""
    return sorted((file.parent / "results" / "runs").glob(f"*/{name}"))


def live_metrics(run: PlannedRun) -> Path:
    return run_folder(run.config.results_dir, run.id) / "metrics.jsonl"


def records(file: Path) -> list[dict]:
    """The records of the table's finished runs."""
    return [json.loads(path.read_text()) for path in sorted((file.parent / "results" / "runs").glob("*.json"))]


@contextlib.contextmanager
def soon(what: str, seconds: float = 90):
    """Yields a function that waits a moment, and fails the test when `seconds` have passed."""
    end = time.monotonic() + seconds

    def wait():
        assert time.monotonic() < end, f"{what} takes longer than {seconds} s"
        time.sleep(0.05)

    yield wait
