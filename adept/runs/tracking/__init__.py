"""What a run shows while it trains: progress bar, console lines, metrics.jsonl, wandb, TensorBoard."""

from __future__ import annotations

from adept.runs.tracking.mirrors import mirror_finished
from adept.runs.tracking.tracker import make_tracker

__all__ = ["make_tracker", "mirror_finished"]
