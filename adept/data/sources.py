"""Rows of a data set: from --data_dir, a task file's own files, the bundled data, or the hub."""

from __future__ import annotations

import codecs
import csv
import functools
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from adept.base.digests import file_digest
from adept.base.errors import UserError, first_line
from adept.config.run import RunConfig
from adept.tasks.rows import CsvText, Row
from adept.tasks.task import Task

FIXTURES = "fixtures"
"""--data_dir fixtures: the rows written by hand for the tests (adept/data/fixtures.py)."""


@dataclass(frozen=True)
class Source:
    """Where the rows of one split come from."""

    origin: str
    """ "local", "bundled" or "hub:<id>/<config>", with "@<revision>" where one is pinned."""
    path: Path | None = None
    """The file, where the origin is local."""
    looked_in: tuple[str, ...] = ()
    """The files that would have come first and are not there."""
    moving: tuple[str, str | None] | None = None
    """The hub's data set and the name of its revision (None: the newest), where that is no commit."""

    @property
    def commit(self) -> str | None:
        """What the revision is at present; None where it does not move, and where no hub tells."""
        return present_commit(*self.moving) if self.moving is not None else None

    @property
    def identity(self) -> str:
        """What tells the rows from others without reading them as rows: a digest of a local file, else the origin, with
        "@<commit>" where that may change and the hub tells its present one.

        A file's digest does not depend on its path.
        """
        if self.path is not None:
            return file_digest(self.path)
        return self.origin if self.commit is None else f"{self.origin}@{self.commit}"


def find_source(task: Task, split: str, config: RunConfig) -> Source:
    """The first of: --data_dir, the task file's own files, the bundled data, the hub. Nothing is read or fetched.

    Raises UserError where --data_dir is no folder or a file of the task file is not there.
    """
    looked_in: tuple[str, ...] = ()
    if config.data_dir is not None:
        root = Path(config.data_dir)
        if config.data_dir == FIXTURES:
            from adept.data.fixtures import data_folder

            root = data_folder()
        folder = root / task.name
        if not os.path.isdir(root):
            raise UserError(
                f"--data_dir {config.data_dir} is not a folder; it should hold <task>/<split>.parquet or .jsonl"
            )
        for path in (folder / f"{split}.parquet", folder / f"{split}.jsonl"):
            if os.path.isfile(path):
                return Source("local", path)
        looked_in = (f"{folder}/{split}.parquet and .jsonl",)
    if split in task.files:
        if not os.path.isfile(task.files[split]):
            raise UserError(f"task file {config.task_file}: files: {split} is not there: {task.files[split]}")
        return Source("local", Path(task.files[split]))
    if task.hub is None:
        return Source("bundled")
    name, subset = task.hub
    revision, there = config.data_revision or task.revision, task.on_hub.get(split, split)
    if there.startswith("https://"):
        return Source(there, None, looked_in)
    pinned = f"@{revision}" if revision else ""
    return Source(f"hub:{name}/{subset}{pinned}", None, looked_in, None if is_commit(revision) else (name, revision))


def is_commit(revision: str | None) -> bool:
    return revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None


@functools.cache
def present_commit(name: str, revision: str | None) -> str | None:
    """The commit of a hub's data set, asked once a process, so that all its runs have the same rows.

    revision: a branch or a tag; None: the newest. None where no hub answers: then the cache's rows are taken.
    """
    import huggingface_hub

    try:
        return huggingface_hub.HfApi().dataset_info(name, revision=revision, timeout=10).sha
    except Exception:  # no network, or no such data set, of which loading it will tell
        return None


def data_files(task: Task, config: RunConfig) -> dict[str, str]:
    """{split: identity of its source}: a fingerprint of the data that costs no reading of rows. Raises UserError."""
    return {split: find_source(task, split, config).identity for split in task.splits}


def load_rows(task: Task, split: str, config: RunConfig) -> tuple[list[Row], str, str]:
    """(rows of one hub split, their Source's origin, and the same as an error names it).

    Raises UserError in one line where they are nowhere or not readable.
    """
    source = find_source(task, split, config)
    if source.path is not None:
        return read_rows(source.path), source.origin, str(source.path)
    if task.hub is None:
        from adept.models.bundled import movie_reviews

        path = movie_reviews() / f"{split}.jsonl"
        return read_rows(path), source.origin, str(path)
    name, subset = task.hub
    revision, there = config.data_revision or task.revision, task.on_hub.get(split, split)
    try:
        rows = load_hub_rows(name, subset, there, source.commit or revision)
    except Exception as error:  # the libraries' errors for what a hub may answer have no base of their own
        pinned = f", revision {revision}" if revision else ""
        looked_in = [
            *source.looked_in,
            f"'{name}' ({subset}{pinned}) in the hub's cache and on the hub ({first_line(error, 100)})",
        ]
        raise UserError(
            f"data of task '{task.name}' not found: looked for {', then '.join(looked_in)}. "
            f"Offline, --data_dir DIR reads DIR/{task.name}/{split}.parquet or .jsonl, "
            "and --task movie_reviews --model smollm2-135m comes from the package index"
        ) from error
    return rows, source.origin, f"{task.name}/{split} ({source.origin})"


def load_hub_rows(name: str, subset: str | None, split: str, revision: str | None) -> list[Row]:
    """Rows of a hub data set, or of the .jsonl file whose URL stands for the split. Raises what the libraries raise."""
    import datasets
    import huggingface_hub

    if split.startswith("https://"):
        return datasets.load_dataset("json", data_files=split, split="train").to_list()
    commit = revision
    if revision and not is_commit(revision):
        commit = huggingface_hub.HfApi().dataset_info(name, revision=revision).sha
    rows = datasets.load_dataset(name, subset, split=split, revision=commit)
    # Without a hub, `datasets` serves whatever revision was cached last.
    if commit and any(commit not in Path(file["filename"]).parts for file in rows.cache_files):
        raise OSError(f"the cache holds another revision, and the hub does not give {revision}")
    return rows.to_list()


def read_rows(path: Path) -> list[Row]:
    """All rows of a .parquet, .jsonl or .csv file. Raises UserError naming file and line when it cannot be read."""
    return [row for _, row in numbered_rows(path)]


def numbered_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yields (where it stands: "FILE, line 3", the row) of a .parquet, .jsonl or .csv file.

    Raises UserError naming file and line when it cannot be read.
    """
    try:
        match path.suffix:
            case ".parquet":
                yield from parquet_rows(path)
            case ".csv":
                yield from csv_rows(path)
            case _:
                with path.open("rb") as file:
                    yield from jsonl_rows(file, str(path))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {first_line(error)}") from error


def parquet_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Rows of a .parquet file, counted from 1. Raises ValueError for a torn one, and for values that Python has no
    type for.
    """
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            rows = itertools.chain.from_iterable(batch.to_pylist() for batch in file.iter_batches())
            for number, row in enumerate(rows, 1):
                yield f"{path}, row {number}", row
    except (pyarrow.ArrowException, ArithmeticError) as error:
        raise ValueError(str(error)) from error


def text_lines(file: Iterable[bytes], name: str) -> Iterator[tuple[str, str]]:
    """Yields (where it stands, the line as text) of what is no blank line. Raises UserError naming the line."""
    for number, line in enumerate(file, 1):
        line, where = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line, f"{name}, line {number}"
        if line.strip():
            try:
                yield where, line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise UserError(f"{where}: {first_line(error)}") from error


def jsonl_rows(file: Iterable[bytes], name: str) -> Iterator[tuple[str, Row]]:
    """One JSON value a line, blank lines skipped. Raises UserError naming the line."""
    for where, line in text_lines(file, name):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not JSON ({error.msg})") from error
        except RecursionError as error:
            raise UserError(f"{where}: {first_line(error)}") from error
        yield where, row


def csv_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Rows whose cells are the text that is written: no cell turns into a number, a date or nothing.

    Raises UserError naming the line.
    """
    csv.field_size_limit(2**31 - 1)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            if twice := [column for column, count in Counter(header).items() if count > 1]:
                raise UserError(f"{path}, line 1: the column '{twice[0]}' is there twice")
            for cells in reader:
                where = f"{path}, line {reader.line_num}"
                if cells and len(cells) != len(header):
                    raise UserError(f"{where}: {len(cells)} cells, but the header has {len(header)} columns")
                if cells:
                    yield where, dict(zip(header, map(CsvText, cells), strict=True))
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}") from error
