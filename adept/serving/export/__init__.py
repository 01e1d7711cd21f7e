"""Trained runs for people without this project: plain folders for transformers, adapters for PEFT."""

from __future__ import annotations

from adept.serving.export.exporter import FORMS, PRECISIONS, export

__all__ = ["FORMS", "PRECISIONS", "export"]
