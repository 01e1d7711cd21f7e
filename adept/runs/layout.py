"""The paths of a run's files."""

from __future__ import annotations

from pathlib import Path


def record_path(results_dir: str, run_id: str) -> Path:
    """The run's record, which is there when the run is finished."""
    return Path(results_dir) / "runs" / f"{run_id}.json"


def run_folder(results_dir: str, run_id: str) -> Path:
    """The folder of adapter, predictions.jsonl, metrics.jsonl, and checkpoints while the run is unfinished."""
    return Path(results_dir) / "runs" / run_id


def lock_path(results_dir: str, run_id: str) -> Path:
    """The file whose lock is the claim on the run."""
    return Path(results_dir) / "runs" / f".{run_id}.lock"


def predictions_path(results_dir: str, run_id: str) -> Path:
    """The predictions for the test rows."""
    return run_folder(results_dir, run_id) / "predictions.jsonl"
