"""Trained runs in use: loaded to predict, one or many in a batch."""

from __future__ import annotations

from adept.serving.bank import Bank
from adept.serving.load import Answer, TrainedSession, load

__all__ = ["Answer", "Bank", "TrainedSession", "load"]
