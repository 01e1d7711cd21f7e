"""Early stopping of hopeless grid points: ASHA's rule (Li et al. 2020, arXiv 1810.05934, Algorithm 2) for a table's
search.

A run is judged once at each rung, 1/9 and 1/3 of its steps rounded up to an evaluation: by its best validation score so
far, among all configurations of its cell that have reached this rung, wherever they run. What they scored is read from
their records and metrics.jsonl, so the runs need nothing in common but the results folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adept.base.atomic_files import write_atomically
from adept.config.run import RunConfig
from adept.runs.layout import record_path, run_folder
from adept.runs.record import HistoryEntry, read_record

PARTS = (9, 3)
"""The rungs: this part of the steps."""


KEPT = 3
"""One in three goes on, and nobody is judged before as many have reached the rung."""


def stopped_path(config: RunConfig) -> Path:
    return run_folder(config.results_dir, config.run_id) / "stopped.json"


def is_stopped(config: RunConfig) -> bool:
    """The run was stopped early and has not been finished since."""
    return stopped_path(config).is_file() and not record_path(config.results_dir, config.run_id).is_file()


def clear_stop(config: RunConfig) -> None:
    """Lets the run go on from where it was stopped."""
    stopped_path(config).unlink(missing_ok=True)


def rungs(config: RunConfig) -> dict[int, str]:
    """{step: its name}; the last evaluation is none."""
    steps = {-(-config.steps // (part * config.eval_every)) * config.eval_every: f"1/{part}" for part in PARTS}
    return {step: name for step, name in steps.items() if 0 < step < config.steps}


@dataclass(frozen=True)
class EarlyStopping:
    """A stopping rule of a run (adept/training/run.py). rivals: run ids of the other configurations of the cell."""

    config: RunConfig
    rivals: tuple[str, ...]

    def __call__(self, step: int, history: Sequence[dict]) -> bool:
        """Whether the run, evaluated at `step`, is hopeless; writes stopped.json if so. False where nothing validates."""
        name, metric = rungs(self.config).get(step), self.config.select_on
        if name is None or metric not in history[-1]["validation"]:
            return False
        score = max(entry["validation"][metric] for entry in history)
        others = [best_until(step, evaluations(self.config.results_dir, rival, metric)) for rival in self.rivals]
        others = [other for other in others if other is not None]
        better, reached = sum(other > score for other in others), 1 + len(others)
        if reached < KEPT or better < reached / KEPT:
            return False
        stop = {"step": step, "score": score, "rung": name, "better": better, "reached": reached}
        write_atomically(stopped_path(self.config), json.dumps(stop) + "\n")
        return True


def best_until(step: int, scores: Iterable[tuple[int, float]]) -> float | None:
    """The best score up to `step`, None where the run has not come so far."""
    scores = list(scores)
    if not any(at >= step for at, _ in scores):
        return None
    return max((score for at, score in scores if at <= step), default=None)


def evaluations(results_dir: str, run_id: str, metric: str) -> list[tuple[int, float]]:
    """(step, validation score) of a run that is finished, running or stopped."""
    if (record := read_record(results_dir, run_id)) is not None:
        return [
            (entry["step"], entry["validation"][metric]) for entry in record["history"] if metric in entry["validation"]
        ]
    try:
        lines = (run_folder(results_dir, run_id) / "metrics.jsonl").read_bytes().splitlines()
    except OSError:
        return []
    scores = []
    for line in lines:
        try:
            entry = json.loads(line)
            history = HistoryEntry(step=entry["step"], validation={metric: entry[f"validation/{metric}"]})
        except (
            ValueError,
            LookupError,
            TypeError,
            RecursionError,
        ):  # a line of losses, one that is being written, or a torn one
            continue
        scores.append((history.step, history.validation[metric]))
    return scores
