"""Runs that a sweep has given up, told to the other workers of the same sweep by a file in the run's folder."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from pydantic import BaseModel, ValidationError

from adept.base.atomic_files import write_atomically
from adept.config.run import RunConfig
from adept.runs.layout import run_folder


class Failure(BaseModel):
    """failed.json."""

    reason: str
    sweep: str | None
    time: float


def failure_path(config: RunConfig) -> Path:
    return run_folder(config.results_dir, config.run_id) / "failed.json"


def sweep_name() -> str | None:
    """What the elements of a Slurm array have in common, also when they are queued again; None elsewhere."""
    return os.environ.get("SLURM_ARRAY_JOB_ID")


def write_failure(config: RunConfig, reason: str) -> None:
    """Tells the other workers that the run is given up."""
    failure = Failure(reason=reason, sweep=sweep_name(), time=time.time())
    write_atomically(failure_path(config), failure.model_dump_json() + "\n")


def clear_failure(config: RunConfig) -> None:
    """Removes the file, because the run is tried again."""
    failure_path(config).unlink(missing_ok=True)


def read_failure(config: RunConfig, since: float) -> str | None:
    """Why another worker has given the run up, in this array or after the time `since`; None where none has.

    What an earlier sweep gave up is tried again: its cause may have been mended.
    """
    try:
        failure = Failure.model_validate(json.loads(failure_path(config).read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        return None
    of_this_sweep = failure.sweep is not None and failure.sweep == sweep_name()
    return failure.reason if of_this_sweep or failure.time >= since else None
