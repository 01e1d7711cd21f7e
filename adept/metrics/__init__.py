"""Scores predicted strings against reference strings, in percent.

One file for each kind of task: classification, regression, question_answering and code. Code metrics run the
generated programs in `sandbox/`. `scoring.METRICS` lists every metric by the name that a task uses; `score` computes
several at once.

scikit-learn and scipy do the computing. The `evaluate` package is not used: its metrics are scripts that
`evaluate.load` downloads from a hub, so none of them works offline.

A prediction that is not one of the task's labels counts as wrong (T5's convention). It equals no reference, and a
metric that needs a class takes the one that is wrong for this row.
"""

from adept.metrics.answers import Answers
from adept.metrics.scoring import METRICS, score

__all__ = ["METRICS", "Answers", "score"]
