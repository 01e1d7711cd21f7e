"""Is a difference more than noise? Intervals over seeds and over test rows, and the paired bootstrap between two methods."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from adept import results
from adept.config import RunConfig, UserError, first_line
from adept.metrics import Answers, score
from adept.tasks import task_of

SMALL_TEST = 300
"""Test sets below this many rows are marked: one standard error is 2.9 points of accuracy or more at 50% (RTE 139, CB 28, WSC 52)."""

FEW_ROWS = 20
"""Below this many test questions nothing is resampled."""

MEANS_OF_ROWS = ("accuracy", "exact_match", "squad_f1")
"""Metrics that are the mean of a value per question, so that resampling needs no new scoring."""


def interval(scores: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of the mean over seeds, in the scores' unit; None for a single one."""
    if len(scores) < 2:
        return None
    half = stats.t.ppf((1 + level) / 2, len(scores) - 1) * statistics.stdev(scores) / math.sqrt(len(scores))
    mean = statistics.mean(scores)
    return mean - half, mean + half


def noise(record: dict) -> float:
    """Points by which a score in percent may differ from another on as many rows by chance (1.96 standard errors of a difference)."""
    share = min(max(next(iter(record["test"].values())) / 100, 0.05), 0.95)
    return 100 * 1.96 * math.sqrt(2 * share * (1 - share) / record["sizes"]["test"])


def small(record: dict) -> bool:
    return record["sizes"]["test"] < SMALL_TEST


class Predictions:
    """A run's test predictions, ready to be resampled by question: rows of one group stay together.

    Raises UserError where they are not there or not readable.
    """

    def __init__(self, record: dict, results_dir: str):
        path = results.run_folder(results_dir, record["run_id"]) / "predictions.jsonl"
        self.config = RunConfig(**record["config"])
        self.task = task_of(self.config)
        try:
            rows = [json.loads(line) for line in Path(path).read_bytes().splitlines()]
            if not rows or not all(map(results.is_prediction, rows)):
                raise ValueError("a line is no prediction")
            self.ids = [row["id"] for row in rows]
            self.predictions = [row["prediction"] for row in rows]
            self.references = [tuple(row["references"]) for row in rows]
            groups = [row.get("group", row["id"]) for row in rows]
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} holds no readable predictions ({first_line(error, 100)}); run it again") from error
        members: dict[str, list[int]] = {}
        for number, group in enumerate(groups):
            members.setdefault(group, []).append(number)
        self.questions = list(members.values())
        self.keys = list(members)
        self.groups = groups

    def score(self, metric: str, questions: Sequence[int] | None = None) -> float:
        """Percent over these questions (by number, repeats count as often), or over all."""
        numbers = range(len(self.questions)) if questions is None else questions
        rows = [(row, f"{copy}:{question}") for copy, question in enumerate(numbers) for row in self.questions[question]]
        return score(
            (metric,),
            Answers(
                predictions=[self.predictions[row] for row, _ in rows],
                references=[self.references[row] for row, _ in rows],
                labels=self.task.labels(self.config),
                groups=[group for _, group in rows],
            ),
        )[metric]


def paired_bootstrap(
    ours: Sequence[Predictions], theirs: Sequence[Predictions], metric: str, *, resamples: int = 1000, seed: int = 0
) -> dict:
    """{"difference", "low", "high" in points, "p"}: ours minus theirs on the same test rows, averaged over the seeds of each.

    Questions are resampled with replacement (scipy.stats.bootstrap, percentile interval of 95%); p is two-sided, from the share of
    resamples on the other side of zero. Raises ValueError where the two were not tested on the same rows, or on too few.
    """
    everyone = [*ours, *theirs]
    if any(one.keys != everyone[0].keys for one in everyone):
        raise ValueError("the two were tested on different rows")
    count = len(everyone[0].questions)
    if count < FEW_ROWS:
        raise ValueError(f"{count} questions are too few to resample")
    if metric in MEANS_OF_ROWS:
        table = np.array([[one.score(metric, [question]) for question in range(count)] for one in everyone])
        gain = table[: len(ours)].mean(0) - table[len(ours) :].mean(0)  # [Q]

        def statistic(chosen, axis=-1):
            return gain[chosen].mean(axis)

        vectorized = True
    else:

        def statistic(chosen):
            scores = [one.score(metric, chosen.tolist()) for one in everyone]
            return np.mean(scores[: len(ours)]) - np.mean(scores[len(ours) :])

        vectorized, resamples = False, min(resamples, 200)  # every resample is scored anew
    numbers = np.arange(count)
    difference = float(statistic(numbers))
    done = stats.bootstrap(
        (numbers,), statistic, n_resamples=resamples, vectorized=vectorized, method="percentile", rng=np.random.default_rng(seed)
    )
    drawn = done.bootstrap_distribution
    other_side = min((drawn <= 0).mean(), (drawn >= 0).mean())
    return {
        "difference": difference,
        "low": float(done.confidence_interval.low),
        "high": float(done.confidence_interval.high),
        "p": float(min(1.0, 2 * (other_side * resamples + 1) / (resamples + 1))),
    }
