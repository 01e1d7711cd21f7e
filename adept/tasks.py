"""A task is a row: where its data lies, how a row becomes text, how it is split, what is measured (Appendix D).

Sources are "column: value" strings joined by blanks, targets are digit strings (released code; --targets words for T5's words).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adept.config import RunConfig, UserError, nearest

Row = Mapping[str, Any]


class Split(enum.Enum):
    """How the paper's train / validation / test come out of the hub's splits (the labelled test sets are not public)."""

    HALVE_VALIDATION = "validation permuted by split_seed: first half validates, second half tests"
    CARVE_1000 = "train permuted by split_seed: 1,000 rows validate, the rest train; the hub's validation tests"
    NATIVE = "the data set's own train, validation and test"


@dataclass(frozen=True)
class Task:
    name: str
    hub: tuple[str, str | None] | None  # data set id and config on the hub (parquet); None: made by adept/bundled.py
    text: tuple[str, ...] | Callable[[Row, RunConfig], str]  # columns -> "col: value col: value", or a renderer from text.py
    words: tuple[str, ...] | None = None  # label words by class id (T5's); None: free text or a number
    target: Callable[[Row, RunConfig], tuple[str, tuple[str, ...]]] | None = None  # row -> (target, references), where no label id
    metrics: tuple[str, ...] = ("accuracy",)  # the first selects the checkpoint
    report: str | None = None  # the metric the table prints, when it is another
    split: Split = Split.HALVE_VALIDATION
    groups: tuple[str, ...] = ()  # "@glue" etc. in YAML; "large": more than 70,000 training rows
    max_source_len: int = 256
    sizes: tuple[int, int, int] | None = None  # the paper's train / validation / test
    cue: str = "answer:"  # stands between source and target on decoder-only models, which see no encoder's end
    splits: tuple[str, ...] = ("train", "validation")  # the hub's names of what `split` reads

    @property
    def reported(self) -> str:
        return self.report or self.metrics[0]

    def labels(self, config: RunConfig) -> tuple[str, ...] | None:
        """Target strings by class id, or None for free text."""
        if self.words is None:
            return None
        return self.words if config.targets == "words" else tuple(str(i) for i in range(len(self.words)))

    def source(self, row: Row, config: RunConfig) -> str:
        """Raises KeyError for a missing column."""
        if callable(self.text):
            return self.text(row, config)
        return " ".join(f"{column}: {row[column]}" for column in self.text)

    def answer(self, row: Row, config: RunConfig) -> tuple[str, tuple[str, ...]]:
        """(training target, references that a prediction is compared with). Raises ValueError for a label outside the list."""
        if self.target is not None:
            return self.target(row, config)
        labels, label = self.labels(config), row["label"]
        if not isinstance(label, int) or not 0 <= label < len(labels):
            raise ValueError(f"label {label!r} is not one of 0..{len(labels) - 1}")
        return labels[label], (labels[label],)


def similarity_target(row: Row, config: RunConfig) -> tuple[str, tuple[str, ...]]:
    """STS-B. 0.2: T5's rounding, compared with the gold score; 0.1: the released code's, compared with itself."""
    score = float(row["label"])
    if config.stsb_rounding == 0.2:
        return f"{round(score * 5) / 5:.1f}", (str(score),)
    return (rounded := str(round(score, 1))), (rounded,)


ENTAILMENT = ("entailment", "not_entailment")

ROWS = [
    Task("sst2", ("nyu-mll/glue", "sst2"), ("sentence",), ("negative", "positive"),
         split=Split.CARVE_1000, groups=("glue",), sizes=(66_349, 1_000, 872)),
    Task("stsb", ("nyu-mll/glue", "stsb"), ("sentence1", "sentence2"), target=similarity_target,
         metrics=("pearson", "spearman"), groups=("glue",), sizes=(5_749, 750, 750)),
    Task("mrpc", ("nyu-mll/glue", "mrpc"), ("sentence1", "sentence2"), ("not_equivalent", "equivalent"),
         metrics=("accuracy", "f1"), groups=("glue",), sizes=(3_668, 204, 204)),
    Task("rte", ("nyu-mll/glue", "rte"), ("sentence1", "sentence2"), ENTAILMENT,
         groups=("glue",), sizes=(2_490, 138, 139)),
    Task("cola", ("nyu-mll/glue", "cola"), ("sentence",), ("unacceptable", "acceptable"),
         metrics=("matthews",), groups=("glue",), sizes=(8_551, 521, 522)),
    Task("boolq", ("aps/super_glue", "boolq"), ("question", "passage"), ("False", "True"),
         groups=("superglue",), sizes=(9_427, 1_635, 1_635)),
    Task("wic", ("aps/super_glue", "wic"), ("sentence1", "sentence2", "word"), ("False", "True"),
         groups=("superglue",), sizes=(5_428, 319, 319)),
    Task("cb", ("aps/super_glue", "cb"), ("premise", "hypothesis"), ("entailment", "contradiction", "neutral"),
         metrics=("f1_macro", "accuracy"), report="accuracy", groups=("superglue",), sizes=(250, 28, 28)),
    Task("movie_reviews", None, ("review",), ("negative", "positive"),
         split=Split.NATIVE, splits=("train", "validation", "test"), cue="sentiment:"),
]  # fmt: skip

TASKS = {task.name: task for task in ROWS}


def find_task(name: str) -> Task:
    """The row, or UserError naming the nearest."""
    if name not in TASKS:
        raise UserError(f"unknown task '{name}'; {nearest(name, TASKS)}")
    return TASKS[name]
