"""What every metric takes: the predictions of one evaluation with their references."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Answers:
    """Predictions of one evaluation and what they are compared with, all in the same order.

    Raises ValueError if there are no rows, if the lengths differ, or if a row has no reference.
    """

    predictions: Sequence[str]
    references: Sequence[tuple[str, ...]]
    """One or more right answers per row; for code metrics (code before the completion, tests, function name)."""
    labels: tuple[str, ...] | None = None
    """The label strings, indexed by class id. None for a task with free text or numbers."""
    groups: Sequence[str] | None = None
    """Rows with the same key belong to one question. None: every row is a question of its own."""
    invalid: str = "wrong"
    """What an answer is that is no label or number: "wrong", or what the "released" metrics make of it."""
    cleanup: str = "return"
    """How code metrics post-process a completion: "return" or "lines" (see `completions.clean_completion`)."""

    def __post_init__(self) -> None:
        rows = len(self.predictions)
        if rows == 0:
            raise ValueError("no predictions to score")
        if len(self.references) != rows:
            raise ValueError(f"{rows} predictions, but {len(self.references)} rows of references")
        if self.groups is not None and len(self.groups) != rows:
            raise ValueError(f"{rows} predictions, but {len(self.groups)} group keys")
        for i, references in enumerate(self.references):
            if not references:
                raise ValueError(f"row {i} has no reference")


Metric = Callable[[Answers], float | None]
"""Returns percent, or None if the metric is not defined on these answers (too few samples)."""


def by_question(values: Sequence[float], groups: Sequence[str] | None) -> list[list[float]]:
    """Collects the rows' values into one list per question; rows of a question need not be neighbours.

    Raises ValueError if the lengths differ.
    """
    if groups is None:
        return [[value] for value in values]
    questions = defaultdict(list)
    for value, group in zip(values, groups, strict=True):
        questions[group].append(value)
    return list(questions.values())
