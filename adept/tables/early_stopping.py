"""Early stopping of hopeless configurations: ASHA's rule for a table's search (Li et al. 2020, arXiv 1810.05934).

A run is judged at two rungs, 1/9 and 1/3 of its steps rounded up to an evaluation (Algorithm 2): it goes on if its best
validation score so far is in the best third of all configurations of its cell that have reached this rung. Their scores
are read from their records and metrics.jsonl, so runs on several machines need to share only the results folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adept.base.atomic_files import write_atomically
from adept.config.run import RunConfig
from adept.runs.layout import record_path, run_folder
from adept.runs.record import HistoryEntry, read_record_once

RUNG_DIVISORS = (9, 3)
"""A rung is the number of steps divided by this."""

REDUCTION = 3
"""One run in three goes on, and none is judged before three have reached the rung (ASHA's eta)."""


def stopped_path(config: RunConfig) -> Path:
    """The file that marks a run as stopped early."""
    return run_folder(config.results_dir, config.run_id) / "stopped.json"


def is_stopped(config: RunConfig) -> bool:
    """Whether the run was stopped early and has not been finished since."""
    return stopped_path(config).is_file() and not record_path(config.results_dir, config.run_id).is_file()


def clear_stop(config: RunConfig) -> None:
    """Removes the mark of stopped_path(), so that the run can go on from its checkpoint."""
    stopped_path(config).unlink(missing_ok=True)


def rungs(config: RunConfig) -> dict[int, str]:
    """{step: name of the rung}. The last step is no rung."""
    steps = {
        math.ceil(config.steps / (divisor * config.eval_every)) * config.eval_every: f"1/{divisor}"
        for divisor in RUNG_DIVISORS
    }
    return {step: name for step, name in steps.items() if 0 < step < config.steps}


@dataclass(frozen=True)
class EarlyStopping:
    """The StoppingRule of one run (adept/training/run.py)."""

    config: RunConfig
    rivals: tuple[str, ...]
    """Run ids of the other configurations of its cell."""

    def __call__(self, step: int, history: Sequence[dict]) -> bool:
        """Whether to stop the run after its evaluation at `step`; writes stopped.json if so.

        history: its evaluations so far. False where the task has no validation score.
        """
        name, metric = rungs(self.config).get(step), self.config.select_on
        if name is None or metric not in history[-1]["validation"]:
            return False
        score = max(entry["validation"][metric] for entry in history)
        rivals = [best_until(step, evaluations(self.config.results_dir, rival, metric)) for rival in self.rivals]
        rivals = [rival for rival in rivals if rival is not None]
        better, reached = sum(rival > score for rival in rivals), 1 + len(rivals)
        if reached < REDUCTION or better < reached / REDUCTION:
            return False
        stop = {"step": step, "score": score, "rung": name, "better": better, "reached": reached}
        write_atomically(stopped_path(self.config), json.dumps(stop) + "\n")
        return True


def best_until(step: int, scores: Iterable[tuple[int, float]]) -> float | None:
    """The best of (step, score) pairs up to `step`; None where none is at `step` or after it."""
    scores = list(scores)
    if not any(at >= step for at, _ in scores):
        return None
    return max((score for at, score in scores if at <= step), default=None)


def evaluations(results_dir: str, run_id: str, metric: str) -> list[tuple[int, float]]:
    """(step, validation score) pairs of a run that is finished, running or stopped."""
    if (record := read_record_once(results_dir, run_id)) is not None:
        history = record["history"]
        return [(entry["step"], entry["validation"][metric]) for entry in history if metric in entry["validation"]]
    try:
        lines = (run_folder(results_dir, run_id) / "metrics.jsonl").read_bytes().splitlines()
    except OSError:  # it has not begun
        return []
    return [evaluation for line in lines if (evaluation := read_evaluation(line, metric)) is not None]


def read_evaluation(line: bytes, metric: str) -> tuple[int, float] | None:
    """(step, score) of a line of metrics.jsonl; None for a line of losses, and for one that is not written whole."""
    try:
        values = json.loads(line)
        entry = HistoryEntry(step=values["step"], validation={metric: values[f"validation/{metric}"]})
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return entry.step, entry.validation[metric]
