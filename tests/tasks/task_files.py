"""Task files of the tests, with their data."""

import json

import pyarrow
import pyarrow.parquet

from adept.config.layers import resolve
from adept.config.run import task_of
from adept.data.dataset import Data, load_data

BASE = {
    "name": "jokes",
    "files": {"train": "train.csv", "validation": "validation.csv", "test": "test.csv"},
    "text": ["title", {"joke": "body"}],
    "label": "funny",
    "labels": ["dull", "funny"],
}
GONE = object()
"""In place of a value: the key is left out."""


def free(**more) -> dict:
    """What turns BASE into a task of free text."""
    return {"label": GONE, "labels": GONE, "target": "funny", **more}


def files(suffix: str, *splits: str) -> dict:
    return {split: f"{split}.{suffix}" for split in splits or ("train", "validation", "test")}


def joke_rows(values: list, count: int = 12) -> list[dict]:
    return [{"title": f"T{i}", "body": f"knock {i}", "funny": values[i % len(values)]} for i in range(count)]


def write_rows(path, rows: list[dict]) -> None:
    match path.suffix:
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        case ".jsonl":
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        case ".csv":
            lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def refused(result, folder, *named: str) -> None:
    """Exit code 2, one line that holds all of `named`, and nothing written."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    for part in named:
        assert part in err
    assert not (folder / "results").exists()


def loaded(path, **flags) -> Data:
    """The data of the task that the file describes."""
    config = resolve({"task_file": str(path), **flags})
    return load_data(task_of(config), config)


LINE = '{"title": "T", "body": "knock", "funny": 0}\n'
HEAD = "title,body,funny\nT,knock,0\n"
