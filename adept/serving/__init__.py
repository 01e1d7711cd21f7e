"""Trained runs in use: loaded to predict."""

from __future__ import annotations

from adept.serving.load import TrainedSession, load

__all__ = ["TrainedSession", "load"]
