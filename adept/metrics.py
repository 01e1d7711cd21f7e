"""Metrics: predicted strings and references in, percent out.

scikit-learn and scipy compute; the `evaluate` package is not used, because its metrics are scripts that
`evaluate.load` downloads from a hub, so none of them works offline.

A prediction that is no label counts as wrong (T5's convention): it can match no reference, and where a metric needs a
class it takes the class that is wrong for this row.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats
from sklearn import metrics as sk

References = Sequence[tuple[str, ...]]
Metric = Callable[[Sequence[str], References, tuple[str, ...] | None], float]


def classes(predictions: Sequence[str], references: References, labels: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(predicted [N], gold [N]) class ids; an invalid prediction is -1."""
    index = {label: i for i, label in enumerate(labels)}
    return np.array([index.get(p, -1) for p in predictions]), np.array([index[r[0]] for r in references])


def accuracy(predictions, references, labels=None) -> float:
    return 100 * float(np.mean([p in r for p, r in zip(predictions, references, strict=True)]))


def f1(predictions, references, labels) -> float:
    """F1 of class 1; an invalid prediction becomes the opposite of its gold class (the released code's f1_score_with_invalid)."""
    predicted, gold = classes(predictions, references, labels)
    predicted = np.where(predicted < 0, 1 - gold, predicted)
    return 100 * float(sk.f1_score(gold, predicted, zero_division=0))


def f1_macro(predictions, references, labels) -> float:
    """Mean F1 over all classes; an invalid prediction lowers its gold class's recall only (the released code's CB metric)."""
    predicted, gold = classes(predictions, references, labels)
    return 100 * float(sk.f1_score(gold, predicted, labels=range(len(labels)), average="macro", zero_division=0))


def matthews(predictions, references, labels) -> float:
    """Matthews correlation; an invalid prediction becomes the opposite of its gold class."""
    predicted, gold = classes(predictions, references, labels)
    predicted = np.where(predicted < 0, 1 - gold, predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # one class only: 0, not a warning
        return 100 * float(sk.matthews_corrcoef(gold, predicted))


def numbers(strings: Sequence[str]) -> np.ndarray:
    """Floats; what is no finite number becomes -1 (T5's string_to_float)."""

    def number(string: str) -> float:
        try:
            value = float(string)
        except ValueError:
            return -1.0
        return value if np.isfinite(value) else -1.0

    return np.array([number(s) for s in strings])


def correlation(statistic: Callable) -> Metric:
    def metric(predictions, references, labels=None) -> float:
        if len(predictions) < 2:
            return 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a constant input has no correlation: 0, not a warning
            value = statistic(numbers(predictions), numbers([r[0] for r in references]))[0]
        return 100 * float(np.nan_to_num(value))

    return metric


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "f1_macro": f1_macro,
    "matthews": matthews,
    "pearson": correlation(stats.pearsonr),
    "spearman": correlation(stats.spearmanr),
}


def score(names: Sequence[str], predictions: Sequence[str], references: References, labels: tuple[str, ...] | None) -> dict[str, float]:
    """{metric: percent}, in the order of `names`."""
    return {name: METRICS[name](predictions, references, labels) for name in names}
