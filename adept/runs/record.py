"""The run record: one JSON file a run, written once and atomically when the run is complete."""

from __future__ import annotations

import contextlib
import functools
import json
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adept.base.atomic_files import write_atomically
from adept.base.errors import UserError
from adept.runs.claim import claim_run, unfinished_files
from adept.runs.layout import lock_path, record_path, run_folder

SCHEMA = 1

Count = Annotated[int, Field(ge=0, lt=2**63)]
Scores = dict[str, Annotated[float, Field(ge=-1e6, le=1e6)]]
"""{metric: percent}, which is empty where nothing validates."""


class Part(BaseModel):
    """Part of a file that a run writes. It names the keys that every reader needs; there may be others."""

    model_config = ConfigDict(strict=True, extra="allow")


class HistoryEntry(Part):
    """One evaluation on the validation set."""

    step: Count
    validation: Scores


class RecordedConfig(Part):
    """The run's options, flat. RunConfig.from_flat() reads all of them."""

    task: str
    steps: Count


class Record(Part):
    """What every reader of records needs."""

    schema_: Literal[1] = Field(alias="schema")
    run_id: str
    config: RecordedConfig
    trainable_params: Count
    history: list[HistoryEntry]
    best_step: Count
    validation: Scores
    test: Scores
    notes: list[str]


def read_record(results_dir: str, run_id: str) -> dict | None:
    """The record of a finished run, or None. Raises UserError for a file that is no record of this schema."""
    path = record_path(results_dir, run_id)
    for folder in path.parents:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--results_dir {results_dir}: {folder} is a file where a folder is needed; name another")
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no readable run record ({error}); move it away to run again") from error
    check_record(record, path)
    if record["run_id"] != run_id:
        raise UserError(
            f"{path} is the record of the run {record['run_id']}; give it that name, or move it away to run again"
        )
    return record


def read_record_once(results_dir: str, run_id: str) -> dict | None:
    """read_record() with a memory: a file is read again only when it has changed. The record must not be changed."""
    path = record_path(results_dir, run_id)
    try:
        status = path.stat()
    except OSError:
        return read_record(results_dir, run_id)
    return _read_version(results_dir, run_id, (status.st_mtime_ns, status.st_size, status.st_ino))


@functools.lru_cache(maxsize=20_000)
def _read_version(results_dir: str, run_id: str, version: tuple[int, int, int]) -> dict | None:
    return read_record(results_dir, run_id)


def check_record(record: Any, path: Path) -> None:
    """Raises UserError for what is no record of this schema; its line names the part that is wrong."""
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise UserError(
            f"{path} is not of schema {SCHEMA}; it was written by another version of adept: "
            "use that one, or another --results_dir"
        )
    try:
        Record.model_validate(record)
    except ValidationError as error:
        parts = {entry["loc"][0]: entry["type"] for entry in reversed(error.errors()) if entry["loc"]}
        if missing := sorted(part for part in parts if part not in record):
            raise UserError(f"{path} lacks {', '.join(missing)}; move it away to run again") from error
        if not parts:  # half a character in a key, which JSON can hold
            reason = error.errors()[0]["msg"]
            raise UserError(f"{path} is no readable run record ({reason}); move it away to run again") from error
        part = min(parts, key=list(Record.model_fields).index)
        raise UserError(
            f"{path}: '{part}' is {record[part]!r:.80}, which no run writes; move the file away to run again"
        ) from error


def refuse_constant(constant: str) -> NoReturn:
    """For json.loads(). Raises ValueError, because a record holds neither NaN nor infinity."""
    raise ValueError(f"it holds {constant}")


def finished_record(results_dir: str, run_id: str) -> dict | None:
    """read_record(); also removes the files of a process that was killed after it had written the record."""
    record = read_record(results_dir, run_id)
    checkpoints = [*run_folder(results_dir, run_id).glob("checkpoint*.safetensors")]
    if record is not None and (
        checkpoints or lock_path(results_dir, run_id).exists() or unfinished_files(results_dir, run_id)
    ):
        # A process that has the claim is removing them itself. Where they cannot be removed, they do no harm.
        with contextlib.suppress(UserError, OSError), claim_run(results_dir, run_id):
            for path in checkpoints:
                path.unlink(missing_ok=True)
    return record


def write_record(results_dir: str, record: dict) -> Path:
    """Writes the record, atomically. Raises UserError when the disk refuses."""
    path = record_path(results_dir, record["run_id"])
    write_atomically(path, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return path


def summary_line(record: dict) -> str:
    """One line: the run, its parameters and its scores."""

    def scores(split: str) -> str:
        return ", ".join(f"{metric} {value:.2f}" for metric, value in record[split].items())

    validation = f"  validation: {scores('validation')}" if record["validation"] else ""
    notes = "".join(f"  ({note})" for note in record["notes"])
    return (
        f"{record['run_id']}  {record['trainable_params']:,} trained parameters{validation}  test: {scores('test')}"
        f"  best step {record['best_step']} of {record['config']['steps']}{notes}"
    )
