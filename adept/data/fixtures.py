"""The hand-written rows of data/fixtures as data sets: everything in seconds, no quality (--data_dir fixtures)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from adept.models.tiny import FIXTURE_FOLDER, fixture_rows, made_once
from adept.tasks import TASKS
from adept.tasks.task import Split

ROWS = 40
"""Rows of a split, enough for 32 shots; a training set of which 1,000 rows are set aside has as many more."""


def data_folder() -> Path:
    """Every task's fixture rows, repeated, as FOLDER/<task>/<split>.jsonl."""
    return made_once("fixtures", write_rows)


def write_rows(folder: Path, tasks: Iterable[str] | None = None, rows_a_split: int = ROWS) -> None:
    for name in tasks or sorted(path.stem for path in FIXTURE_FOLDER.glob("*.jsonl")):
        task, rows = TASKS[name], fixture_rows(name)
        (folder / name).mkdir(parents=True)
        for split in task.splits:
            count = rows_a_split + 1000 * (task.split is Split.CARVE_1000 and split == "train")
            lines = [json.dumps(rows[i % len(rows)]) + "\n" for i in range(count)]
            (folder / name / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
