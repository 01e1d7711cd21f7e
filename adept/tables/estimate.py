"""The commands of a table's runs, and an estimate of the time that they take."""

from __future__ import annotations

import contextlib
import shlex
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adept.base.errors import UserError
from adept.config.run import RunConfig
from adept.runs.record import read_record_once
from adept.tables.cell import device_of
from adept.tables.planned_run import PlannedRun

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


def estimate(runs: Sequence[PlannedRun], device: str) -> str:
    """How many of the runs are left and the hours that they take, with the devices whose speed that is; how many are
    done and the hours that they took.

    A run counts at the median speed of the finished runs that are most alike, in the same results folders: on `device`
    (describe_device), where there are some, else on any. A run of T5-base without such counts at the speed of DePT's
    released logs.
    """
    finished = [
        speed for folder in sorted({run.config.results_dir for run in runs}) for speed in finished_speeds(folder)
    ]
    done = [run.record for run in runs if run.record is not None]
    left = [run for run in runs if run.record is None]
    hours, counts = 0.0, Counter()
    for run in left:
        rate, basis = steps_per_second(run.config, finished, device)
        counts[basis] += 1
        hours += run.config.steps / rate / 3600 if rate else 0
    uncounted = [f"{counts.pop(basis)} {basis}" for basis in (UNKNOWN, EVALUATION) if counts[basis]]
    bases = ", ".join(f"{count} {basis}" for basis, count in counts.items() if count)
    text = f"{len(left)} of {len(runs)} runs are left" if done else f"{len(runs)} runs"
    text += f", {hours:,.1f} hours" + (f" ({bases})" if bases else "")
    if uncounted:
        text += f", without {' and '.join(uncounted)}"
    if done:
        text += (
            f"; {len(done)} are done and took {sum(map(hours_of, done)):,.1f} hours{on_devices(map(device_of, done))}"
        )
    return text


def hours_of(record: dict) -> float:
    """The hours of a finished run's training and evaluation; of a stacked run its share."""
    return sum(record["timing"].get(part) or 0 for part in ("train_seconds", "eval_seconds")) / 3600


def on_devices(devices: Iterable[str]) -> str:
    """The devices behind the word "on": " on NVIDIA H200 and cpu, 1 threads"; empty where none is known."""
    known = sorted({*devices} - {""})
    return f" on {' and '.join(known)}" if known else ""


UNKNOWN, EVALUATION = "of models that have not run", "that only evaluate"
"""Runs whose time is not estimated."""


def steps_per_second(config: RunConfig, finished: Sequence[Speed], device: str) -> tuple[float | None, str]:
    """(a run's speed, what it is taken from); None for a run whose time is not estimated."""
    if config.steps == 0:
        return None, EVALUATION
    for names in ALIKE:
        alike = [speed for speed in finished if all(speed.options.get(name) == config.get(name) for name in names)]
        if chosen := [speed for speed in alike if same_kind(speed.device, device)] or alike:
            on = on_devices(speed.device for speed in chosen)
            return statistics.median(speed.steps_per_second for speed in chosen), f"as finished runs like them{on}"
    if config.model == "t5-base":
        for length, rate in STEPS_PER_SECOND.items():
            if config.max_source_len <= length:
                return rate, "as DePT's released T5-base logs, on a GPU"
    return None, UNKNOWN


def same_kind(device: str, other: str) -> bool:
    """Whether two devices are of one name, with whatever number of threads."""
    return device.split(",")[0] == other.split(",")[0]


@dataclass(frozen=True)
class Speed:
    """What a finished run tells of others' speed. device: as its record names it."""

    options: Mapping[str, Any]
    device: str
    steps_per_second: float


def finished_speeds(results_dir: str) -> list[Speed]:
    """Of every finished run of a results folder that trained alone."""
    found = []
    for path in sorted(Path(results_dir, "runs").glob("*.json")):
        with contextlib.suppress(UserError):  # no record of this schema
            record = read_record_once(results_dir, path.stem)
            rate = record["timing"].get("steps_per_second")
            if rate and record.get("provenance", {}).get("stacked", 1) == 1:
                found.append(Speed(record["config"], device_of(record), rate))
    return found
