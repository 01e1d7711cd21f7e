"""The commands of a table's runs, and an estimate of the time that they take."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from adept.tables.table import PlannedRun

STEPS_PER_SECOND = {256: 2.7, 348: 1.8, 512: 1.15}
"""Of T5-base on one GPU, by maximum source length: DePT's released logs of 17 runs (batch 32, fp32)."""


def train_command(flags: Mapping[str, Any]) -> str:
    """The train.py command of one run."""
    words = [f"--{name} {'none' if value is None else shlex.quote(str(value))}" for name, value in flags.items()]
    return " ".join(["python train.py", *words])


def estimate_hours(runs: list[PlannedRun]) -> str:
    """The GPU hours that the runs take, in words.

    A finished run counts at its own speed, another run of T5-base at the speed of DePT's released logs.
    """
    hours, measured, unknown = 0.0, 0, 0
    for run in runs:
        record, config = run.record, run.config
        if config.steps == 0:
            continue
        if record is not None:
            rate, measured = record["timing"].get("steps_per_second"), measured + 1
        elif config.model == "t5-base":
            rate = next((rate for length, rate in STEPS_PER_SECOND.items() if config.max_source_len <= length), None)
        else:
            rate = None
        unknown += not rate
        hours += config.steps / rate / 3600 if rate else 0
    basis = f"{hours:,.1f} GPU hours at the speed of DePT's released T5-base logs"
    basis += f" ({measured} finished runs: at their own)" if measured else ""
    return basis + (f"; {unknown} runs of other models are not counted" if unknown else "")
