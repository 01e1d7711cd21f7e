"""Tables from the text of their file, and records that their runs could have left."""

from pathlib import Path

from adept.runs.record import SCHEMA, write_record
from adept.tables.table import PlannedRun, Table
from adept.tables.table_file import load_table


def make_table(folder: Path, text: str, profile: str | None = None, **overrides) -> Table:
    """The table of a file with this text. Its records are in folder/results."""
    file = folder / "made_up.yaml"
    file.write_text("title: Made up\n" + text)
    return load_table(file, {"results_dir": str(folder / "results"), **overrides}, profile)


def write_made_up_record(run: PlannedRun, score: float, **parts) -> None:
    """A record with this score on the metric that selects, and 100 - score on the others and on the test set."""
    config = run.config
    validation = {"accuracy": 100 - score, config.select_on: score}
    record = {
        "schema": SCHEMA, "run_id": config.run_id, "config": config.flat(), "best_step": 20, "trainable_params": 7,
        "notes": [], "sizes": {"train": 100, "validation": 50, "test": 400},
        "timing": {"test_examples_per_second": 12.0}, "history": [{"step": 20, "validation": validation}],
        "validation": validation, "test": {"accuracy": 100 - score, "exact_match": 3, "squad_f1": 4},
    }  # fmt: skip
    write_record(config.results_dir, {**record, **parts})


def shown(runs, *fields) -> list[tuple]:
    """The runs' values of these options, with a "?" in front where a run is pending."""
    return [("?",) * run.pending + tuple(run.config.get(name) for name in fields) for run in runs]
