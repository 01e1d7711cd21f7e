"""Whether a difference is more than noise: intervals over seeds and test rows, and paired tests between two cells.

A score is uncertain for two reasons: other test rows, which are drawn again with replacement (bootstrap), and other
seeds, of which there are two or three. Drawing so few seeds again would make intervals far too narrow, so the variance
between the seeds is added, less what the test rows alone explain of it, and Student's t takes the place of the normal
distribution (Satterthwaite's degrees of freedom). tests/tables/test_significance.py measures the level.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from adept.base.errors import UserError
from adept.config.run import RunConfig, task_of
from adept.metrics import Answers, score
from adept.runs.predictions import read_predictions

SMALL_TEST = 300
"""Test sets of fewer rows are marked as small (RTE has 139, CB 28, WSC 52).

One standard error of an accuracy of 50% is then at least 2.9 points.
"""

MIN_QUESTIONS = 20
"""Fewer test questions are not resampled."""

SIGNIFICANT = 0.05
"""A p-value below it is taken for more than noise."""

MEAN_METRICS = ("accuracy", "exact_match", "squad_f1")
"""Metrics that are the mean of a value per question: a resample is scored from these values."""

MAX_SCORED_RESAMPLES = 200
"""The most resamples of other metrics, each of which is scored anew."""


def seed_interval(scores: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of the mean over seeds, in the unit of the scores; None for fewer than two."""
    if len(scores) < 2:
        return None
    half = stats.t.ppf((1 + level) / 2, len(scores) - 1) * statistics.stdev(scores) / math.sqrt(len(scores))
    mean = statistics.mean(scores)
    return mean - half, mean + half


def is_small_test(record: dict) -> bool:
    """Whether the run was tested on fewer than SMALL_TEST rows."""
    return record["sizes"]["test"] < SMALL_TEST


class TestedRun:
    """A run's test predictions, grouped by question: the rows of one question are resampled together.

    Raises UserError for predictions that are not there or not readable.
    """

    def __init__(self, record: dict, results_dir: str):
        self.task = task_of(RunConfig.from_record(record["config"]))
        self.predictions = read_predictions(results_dir, record["run_id"])
        by_question: dict[str, list[int]] = {}
        for row, prediction in enumerate(self.predictions):
            by_question.setdefault(prediction.question, []).append(row)
        self.names, self.questions = list(by_question), list(by_question.values())
        self._scores: dict[tuple[str, int, int], tuple[float, np.ndarray]] = {}

    def scores(self, metric: str, resamples: int, seed: int) -> tuple[float, np.ndarray]:
        """(score, scores [resamples] on questions drawn with replacement). Runs of as many questions draw the same."""
        key = metric, resamples, seed
        if key not in self._scores:
            count, random = len(self.questions), np.random.default_rng(seed)
            if metric in MEAN_METRICS:
                each = np.array([self.score(metric, [question]) for question in range(count)])
                drawn = [each[random.integers(count, size=count)].mean() for _ in range(resamples)]
                self._scores[key] = each.mean(), np.array(drawn)
            else:
                draws = [random.integers(count, size=count) for _ in range(min(resamples, MAX_SCORED_RESAMPLES))]
                drawn = [self.score(metric, questions.tolist()) for questions in draws]
                self._scores[key] = self.score(metric), np.array(drawn)
        return self._scores[key]

    def score(self, metric: str, questions: Sequence[int] | None = None) -> float:
        """The metric in percent over these questions, or over all.

        questions: their numbers. A number that occurs twice counts as two questions.
        """
        numbers = range(len(self.questions)) if questions is None else questions
        rows = [
            (row, f"{copy}:{question}") for copy, question in enumerate(numbers) for row in self.questions[question]
        ]
        answers = Answers(
            predictions=[self.predictions[row].prediction for row, _ in rows],
            references=[tuple(self.predictions[row].references) for row, _ in rows],
            labels=self.task.labels,
            groups=[group for _, group in rows],
            invalid=self.task.invalid_answers,
        )
        return score((metric,), answers)[metric]


class PairedTests:
    """Paired bootstraps between the runs of one results folder. The predictions of a run are read once."""

    def __init__(self, results_dir: str):
        self.results_dir = results_dir
        self.runs: dict[str, TestedRun] = {}

    def compare(self, ours: Sequence[dict], theirs: Sequence[dict], metric: str) -> dict | None:
        """paired_test() of two configurations, given by their records; None where they cannot be compared.

        That is: no records or predictions, other test rows, too few of them, or a metric of several samples a row.
        """
        if not ours or not theirs or metric.startswith("pass@"):
            return None
        try:
            return paired_test([self.read(record) for record in ours], [self.read(r) for r in theirs], metric)
        except (UserError, ValueError):
            return None

    def interval(self, records: Sequence[dict], metric: str) -> tuple[float, float] | None:
        """score_interval() of a configuration, given by its records; None where there is none."""
        if not records or metric.startswith("pass@"):
            return None
        try:
            return score_interval([self.read(record) for record in records], metric)
        except (UserError, ValueError):
            return None

    def read(self, record: dict) -> TestedRun:
        """The predictions of a run. Raises UserError where there are none."""
        run_id = record["run_id"]
        if run_id not in self.runs:
            self.runs[run_id] = TestedRun(record, self.results_dir)
        return self.runs[run_id]


def paired_test(
    ours: Sequence[TestedRun], theirs: Sequence[TestedRun], metric: str, *, resamples: int = 1000, seed: int = 0
) -> dict:
    """Tests the difference between two configurations on the same test rows, each averaged over its seeds.

    Returns {"difference": ours minus theirs in points, "low" and "high": its 95% interval, "p": two-sided}, and what
    these are made from: "uncertainty", the number of "questions", and that of "seeds" of the side that has fewer.

    Raises ValueError where the two were not tested on the same rows, or on fewer than MIN_QUESTIONS questions.
    """
    return difference_test(*(drawn_scores(runs, metric, resamples, seed) for runs in same_rows(ours, theirs)))


def score_interval(
    runs: Sequence[TestedRun], metric: str, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """The interval of a metric, averaged over the runs' seeds. Raises ValueError as paired_test() does."""
    (checked,) = same_rows(runs)
    scores = drawn_scores(checked, metric, resamples, seed)
    found = uncertainty([scores], scores.drawn.mean(1))
    half = stats.t.ppf((1 + level) / 2, found.freedom) * found.error
    mean = scores.observed.mean()
    return float(max(mean - half, min(mean, 0))), float(min(mean + half, 100))


def same_rows(*sides: Sequence[TestedRun]) -> Sequence[Sequence[TestedRun]]:
    """The sides. Raises ValueError unless all runs were tested on the same MIN_QUESTIONS or more questions."""
    first = sides[0][0]
    if any(run.names != first.names for runs in sides for run in runs):
        raise ValueError("the two were tested on different rows")
    if len(first.questions) < MIN_QUESTIONS:
        raise ValueError(f"{len(first.questions)} questions are too few to resample")
    return sides


@dataclass(frozen=True)
class DrawnScores:
    """The scores of a configuration's runs."""

    observed: np.ndarray
    """[runs], on the test rows."""
    drawn: np.ndarray
    """[resamples, runs], on test rows drawn with replacement: the same rows in all runs of both sides."""
    questions: int


def drawn_scores(runs: Sequence[TestedRun], metric: str, resamples: int, seed: int) -> DrawnScores:
    """Scores the runs on their test rows and on rows drawn again. seed: two calls with the same draw the same rows."""
    scores = [run.scores(metric, resamples, seed) for run in runs]
    observed, drawn = (np.stack(part, axis=-1) for part in zip(*scores, strict=True))
    return DrawnScores(observed, drawn, len(runs[0].questions))


@dataclass(frozen=True)
class Uncertainty:
    """How sure a statistic is, in squared points."""

    rows: float
    """Its variance over test rows."""
    seeds: float
    """Its variance over seeds beyond that; 0 where no side has two."""
    freedom: float
    """Degrees of freedom of Student's t."""
    resamples: int

    @property
    def error(self) -> float:
        """The standard error, in points."""
        return math.sqrt(self.rows + self.seeds)

    def one_sided(self, value: float) -> float:
        """p of a statistic as large as `value` where the truth is 0 or less."""
        if self.error == 0:  # every question says the same
            return 0.5 / (self.resamples + 1) if value > 0 else 1.0
        return float(stats.t.sf(value / self.error, self.freedom))


def difference_test(ours: DrawnScores, theirs: DrawnScores, level: float = 0.95) -> dict:
    """The test of paired_test() on drawn scores."""
    difference = float(ours.observed.mean() - theirs.observed.mean())
    found = uncertainty([ours, theirs], ours.drawn.mean(1) - theirs.drawn.mean(1))
    half = float(stats.t.ppf((1 + level) / 2, found.freedom) * found.error)
    return {
        "difference": difference,
        "low": difference - half,
        "high": difference + half,
        "p": min(1.0, 2 * found.one_sided(abs(difference))),
        "uncertainty": found,
        "questions": ours.questions,
        "seeds": min(ours.observed.size, theirs.observed.size),
    }


def uncertainty(sides: Sequence[DrawnScores], drawn: np.ndarray) -> Uncertainty:
    """Of a statistic of the sides. drawn [resamples]: the statistic on drawn rows.

    The variance over rows is that of `drawn`. A side of two seeds or more adds the variance of its mean over seeds,
    without the part that the drawn rows have already: by them the seeds of one configuration differ, too.
    """
    rows, seeds = float(drawn.var(ddof=1)), 0.0
    parts = [(rows, sides[0].questions - 1)]  # (variance, its degrees of freedom)
    for side in sides:
        if (count := side.observed.size) > 1:
            between = float(side.observed.var(ddof=1))
            by_rows = float((side.drawn - side.drawn.mean(1, keepdims=True)).var(0, ddof=1).sum()) / (count - 1)
            parts.append((between / count, count - 1))
            seeds += max(0.0, between - by_rows) / count
    weight = sum(variance**2 / freedom for variance, freedom in parts)
    freedom = sum(variance for variance, _ in parts) ** 2 / weight if weight else math.inf
    return Uncertainty(rows, seeds, freedom, len(drawn))


def p_value_text(p_value: float) -> str:
    """ "p = 0.022" or "p < 0.001": the tail of so small a value is not known to its digits."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values after Holm's correction for so many comparisons, in their order."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
