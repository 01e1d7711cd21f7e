"""Is a difference more than noise? Intervals over seeds and over test rows, and the paired bootstrap between two
methods.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
from scipy import stats

from adept.config.run import RunConfig, task_of
from adept.metrics import Answers, score
from adept.runs.predictions import read_predictions

SMALL_TEST = 300
"""Test sets below this many rows are marked: one standard error is 2.9 points of accuracy or more at 50% (RTE 139, CB
28, WSC 52).
"""

FEW_ROWS = 20
"""Below this many test questions nothing is resampled."""

MEANS_OF_ROWS = ("accuracy", "exact_match", "squad_f1")
"""Metrics that are the mean of a value per question, so that resampling needs no new scoring."""


def seed_interval(scores: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of the mean over seeds, in the scores' unit; None for a single one."""
    if len(scores) < 2:
        return None
    half = stats.t.ppf((1 + level) / 2, len(scores) - 1) * statistics.stdev(scores) / math.sqrt(len(scores))
    mean = statistics.mean(scores)
    return mean - half, mean + half


def chance_difference(record: dict) -> float:
    """Points by which a score in percent may differ from another on as many rows by chance (1.96 standard errors of a
    difference).
    """
    share = min(max(next(iter(record["test"].values())) / 100, 0.05), 0.95)
    return 100 * 1.96 * math.sqrt(2 * share * (1 - share) / record["sizes"]["test"])


def is_small_test(record: dict) -> bool:
    return record["sizes"]["test"] < SMALL_TEST


class TestedRun:
    """A run's test predictions, ready to be resampled by question: rows of one group stay together.

    Raises UserError where they are not there or not readable.
    """

    def __init__(self, record: dict, results_dir: str):
        self.task = task_of(RunConfig.from_record(record["config"]))
        self.predictions = read_predictions(results_dir, record["run_id"])
        members: dict[str, list[int]] = {}
        for number, prediction in enumerate(self.predictions):
            members.setdefault(prediction.question, []).append(number)
        self.questions = list(members.values())
        self.keys = list(members)

    def score(self, metric: str, questions: Sequence[int] | None = None) -> float:
        """Percent over these questions (by number, repeats count as often), or over all."""
        numbers = range(len(self.questions)) if questions is None else questions
        rows = [
            (row, f"{copy}:{question}") for copy, question in enumerate(numbers) for row in self.questions[question]
        ]
        return score(
            (metric,),
            Answers(
                predictions=[self.predictions[row].prediction for row, _ in rows],
                references=[tuple(self.predictions[row].references) for row, _ in rows],
                labels=self.task.labels,
                groups=[group for _, group in rows],
            ),
        )[metric]


def paired_bootstrap(
    ours: Sequence[TestedRun], theirs: Sequence[TestedRun], metric: str, *, resamples: int = 1000, seed: int = 0
) -> dict:
    """{"difference", "low", "high" in points, "p"}: ours minus theirs on the same test rows, averaged over the seeds of
    each.

    Questions are resampled with replacement (scipy.stats.bootstrap, percentile interval of 95%); p is two-sided, from
    the share of resamples on the other side of zero. Raises ValueError where the two were not tested on the same rows,
    or on too few.
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
        (numbers,),
        statistic,
        n_resamples=resamples,
        vectorized=vectorized,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    drawn = done.bootstrap_distribution
    other_side = min((drawn <= 0).mean(), (drawn >= 0).mean())
    return {
        "difference": difference,
        "low": float(done.confidence_interval.low),
        "high": float(done.confidence_interval.high),
        "p": float(min(1.0, 2 * (other_side * resamples + 1) / (resamples + 1))),
    }
