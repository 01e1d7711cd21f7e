"""The metrics by name, and several of them at once."""

from __future__ import annotations

from collections.abc import Sequence

from adept.metrics.answers import Answers, Metric
from adept.metrics.classification import accuracy, f1, f1_macro, matthews, question_em
from adept.metrics.code import pass_at_1, pass_at_1_two_versions, pass_at_10
from adept.metrics.question_answering import exact_match, squad_f1
from adept.metrics.regression import pearson, spearman
from adept.metrics.worked_answers import final_number

METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "question_em": question_em,
    "f1": f1,
    "f1_macro": f1_macro,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
    "exact_match": exact_match,
    "squad_f1": squad_f1,
    "final_number": final_number,
    "pass@1_two_versions": pass_at_1_two_versions,
    "pass@1": pass_at_1,
    "pass@10": pass_at_10,
}
"""Each metric by the name that tasks and run records use."""


def score(names: Sequence[str], answers: Answers) -> dict[str, float]:
    """Returns {metric name: percent} in the order of `names`, without the metrics not defined on these answers."""
    values = ((name, METRICS[name](answers)) for name in names)
    return {name: value for name, value in values if value is not None}
