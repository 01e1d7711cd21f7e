"""The commands of a table's runs, and an estimate of the time that they take."""

from __future__ import annotations

import contextlib
import shlex
import statistics
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adept.base.errors import UserError
from adept.runs.record import read_record_once
from adept.tables.table import PlannedRun

STEPS_PER_SECOND = {256: 2.7, 348: 1.8, 512: 1.15}
"""Of T5-base on one GPU, by maximum source length: DePT's released logs of 17 runs (batch 32, fp32)."""


def train_command(flags: Mapping[str, Any]) -> str:
    """The train.py command of one run."""
    words = [f"--{name} {'none' if value is None else shlex.quote(str(value))}" for name, value in flags.items()]
    return " ".join(["python train.py", *words])


ALIKE = (
    ("model", "method", "max_source_len", "batch_size", "grad_accum", "precision"),
    ("model", "max_source_len", "batch_size", "grad_accum"),
    ("model",),
)
"""Options in which a finished run must agree with another to tell its speed: the first that some run agrees in."""


def estimate_hours(runs: list[PlannedRun]) -> str:
    """The GPU hours that the runs take, in words.

    A finished run counts at its own speed. Another counts at the median speed of the finished runs that are most alike,
    in the same results folders; and a run of T5-base without such, at the speed of DePT's released logs.
    """
    finished = [
        speed for folder in sorted({run.config.results_dir for run in runs}) for speed in finished_speeds(folder)
    ]
    hours, counts = 0.0, Counter()
    for run in runs:
        if run.config.steps == 0:
            continue
        rate, basis = steps_per_second(run, finished)
        counts[basis] += 1
        hours += run.config.steps / rate / 3600 if rate else 0
    unknown = counts.pop(UNKNOWN, 0)
    text = f"{hours:,.1f} GPU hours"
    text += f" ({', '.join(f'{count} {basis}' for basis, count in counts.items())})" if counts else ""
    return text + (f"; {unknown} runs of other models are not counted" if unknown else "")


OWN, LIKE, RELEASED, UNKNOWN = "at their own speed", "as finished runs like them", "as DePT's released T5-base logs", ""
"""What a run's speed is taken from."""


def steps_per_second(run: PlannedRun, finished: list[tuple[dict, float]]) -> tuple[float | None, str]:
    """(a run's speed, what it is taken from). finished: finished_speeds()."""
    config = run.config
    if run.record is not None:
        rate = run.record["timing"].get("steps_per_second")
        return rate, OWN if rate else UNKNOWN
    for names in ALIKE:
        wanted = {name: config.get(name) for name in names}
        if rates := [rate for options, rate in finished if all(options.get(k) == v for k, v in wanted.items())]:
            return statistics.median(rates), LIKE
    if config.model == "t5-base":
        rate = next((rate for length, rate in STEPS_PER_SECOND.items() if config.max_source_len <= length), None)
        return rate, RELEASED if rate else UNKNOWN
    return None, UNKNOWN


def finished_speeds(results_dir: str) -> list[tuple[dict, float]]:
    """(options, steps per second) of every finished run of a results folder that trained alone."""
    found = []
    for path in sorted(Path(results_dir, "runs").glob("*.json")):
        with contextlib.suppress(UserError):  # no record of this schema
            record = read_record_once(results_dir, path.stem)
            rate = record["timing"].get("steps_per_second")
            if rate and record.get("provenance", {}).get("stacked", 1) == 1:
                found.append((record["config"], rate))
    return found
