"""Metrics of tasks whose answer is a number (STS-B)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from adept.metrics.answers import Answers, Metric


def parse_numbers(strings: Sequence[str], *, finite: bool = True) -> np.ndarray:
    """Returns floats [N]; a string that is not a number becomes -1 (T5's string_to_float).

    finite: so does one that is not a finite number ("nan", "inf", "1e400").
    """

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            return -1.0
        return value if np.isfinite(value) or not finite else -1.0

    return np.array([parse(text) for text in strings])


def correlation_metric(statistic: Callable) -> Metric:
    """Returns the metric that computes `statistic(predicted, gold)[0]` in percent.

    The metric is 0 for a single row, and if all predictions or all references are equal. A prediction that is no finite
    number is read as -1; in the released code's metric, of answers.invalid "released", one such makes the metric 0.
    """

    def metric(answers: Answers) -> float:
        if len(answers.predictions) < 2:
            return 0.0
        gold = [references[0] for references in answers.references]
        predicted = parse_numbers(answers.predictions, finite=answers.invalid == "wrong")
        if not np.isfinite(predicted).all():
            return 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a constant input has no correlation: 0, which needs no warning
            value = statistic(predicted, parse_numbers(gold))[0]
        return 100 * float(np.nan_to_num(value))

    return metric


pearson = correlation_metric(stats.pearsonr)
spearman = correlation_metric(stats.spearmanr)
