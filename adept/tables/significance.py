"""Whether a difference is more than noise: intervals over seeds, and the paired bootstrap between two methods."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

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


def chance_difference(record: dict) -> float:
    """The points by which the scores of two runs on this many test rows may differ by chance.

    1.96 standard errors of the difference of two shares, in percent.
    """
    share = min(max(next(iter(record["test"].values())) / 100, 0.05), 0.95)
    return 100 * 1.96 * math.sqrt(2 * share * (1 - share) / record["sizes"]["test"])


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
        """paired_bootstrap() of two configurations, given by their records.

        None where they cannot be compared: no records or predictions, other test rows, too few of them, or a metric of
        several samples a row (pass@k).
        """
        if not ours or not theirs or metric.startswith("pass@"):
            return None
        try:
            return paired_bootstrap([self.read(record) for record in ours], [self.read(r) for r in theirs], metric)
        except (UserError, ValueError):
            return None

    def read(self, record: dict) -> TestedRun:
        """The predictions of a run. Raises UserError where there are none."""
        run_id = record["run_id"]
        if run_id not in self.runs:
            self.runs[run_id] = TestedRun(record, self.results_dir)
        return self.runs[run_id]


def paired_bootstrap(
    ours: Sequence[TestedRun], theirs: Sequence[TestedRun], metric: str, *, resamples: int = 1000, seed: int = 0
) -> dict:
    """Tests the difference between two configurations on the same test rows, each averaged over its runs.

    Questions are resampled with replacement. Returns {"difference": ours minus theirs in points, "low" and "high": its
    95% percentile interval, "p": two-sided, from the share of resamples on the other side of zero}.

    Raises ValueError where the two were not tested on the same rows, or on fewer than MIN_QUESTIONS questions.
    """
    runs = [*ours, *theirs]
    if any(run.names != runs[0].names for run in runs):
        raise ValueError("the two were tested on different rows")
    count = len(runs[0].questions)
    if count < MIN_QUESTIONS:
        raise ValueError(f"{count} questions are too few to resample")
    vectorized = metric in MEAN_METRICS
    if not vectorized:
        resamples = min(resamples, MAX_SCORED_RESAMPLES)
    statistic = (difference_of_means if vectorized else difference_of_scores)(ours, theirs, metric)
    questions = np.arange(count)
    result = stats.bootstrap(
        (questions,),
        statistic,
        n_resamples=resamples,
        vectorized=vectorized,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    drawn = result.bootstrap_distribution
    other_side = min((drawn <= 0).mean(), (drawn >= 0).mean())
    return {
        "difference": float(statistic(questions)),
        "low": float(result.confidence_interval.low),
        "high": float(result.confidence_interval.high),
        "p": float(min(1.0, 2 * (other_side * resamples + 1) / (resamples + 1))),
    }


def difference_of_means(
    ours: Sequence[TestedRun], theirs: Sequence[TestedRun], metric: str
) -> Callable[..., np.ndarray]:
    """Question numbers [..., Q] -> ours minus theirs [...], for a metric that is a mean over questions."""
    count = len(ours[0].questions)
    scores = np.array([[run.score(metric, [question]) for question in range(count)] for run in (*ours, *theirs)])
    gains = scores[: len(ours)].mean(0) - scores[len(ours) :].mean(0)  # [Q]
    return lambda questions, axis=-1: gains[questions].mean(axis)


def difference_of_scores(
    ours: Sequence[TestedRun], theirs: Sequence[TestedRun], metric: str
) -> Callable[[np.ndarray], float]:
    """Question numbers [Q] -> ours minus theirs, scored anew."""

    def mean_score(runs: Sequence[TestedRun], questions: np.ndarray) -> float:
        return np.mean([run.score(metric, questions.tolist()) for run in runs])

    return lambda questions: mean_score(ours, questions) - mean_score(theirs, questions)
