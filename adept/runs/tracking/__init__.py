"""What a run shows while it runs."""

from __future__ import annotations

from adept.runs.tracking.tracker import make_tracker

__all__ = ["make_tracker"]
