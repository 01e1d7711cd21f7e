"""What a task is: where its data lies, how a row becomes text, how it is split, what is measured (Appendix D).

Sources are "column: value" strings joined by blanks. Targets are digit strings (released code; --targets words for T5's
words). Where the paper and its released code differ, the task has options.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adept.base.options import Options
from adept.tasks.rows import Answer, CsvText, Row, text_value


class Split(enum.Enum):
    """How the paper's train, validation and test come out of the hub's splits. Labelled test sets are not public."""

    HALVE_VALIDATION = "validation permuted by split_seed: first half validates, second half tests"
    CARVE_1000 = "train permuted by split_seed: 1,000 rows validate, the rest train; the hub's validation tests"
    NATIVE = "the data set's own train, validation and test"
    HALVE_ROWS = (
        "the first half of the rows trains, the second tests, nothing validates: the last step's weights are tested"
    )
    TRAIN_TEST = "the data set's own train and test, nothing validates: the last step's weights are tested"

    @property
    def validates(self) -> bool:
        """Whether some rows choose the checkpoint."""
        return self not in (Split.HALVE_ROWS, Split.TRAIN_TEST)


class TaskOptions(Options):
    """Options that only some tasks have. This one is of tasks that have none."""

    def changes(self) -> dict[str, Any]:
        """Fields of the Task that these options change."""
        return {}


@dataclass(frozen=True)
class Sampling:
    """How predictions are drawn. temperature 0 decodes greedily; `samples` are drawn for each test row."""

    temperature: float
    top_p: float
    samples: int


@dataclass(frozen=True)
class Task:
    """A row of the table of tasks. A field that says nothing of options is the same under every option."""

    name: str
    hub: tuple[str, str | None] | None
    """Data set id and config on the hub (no loading script); None: bundled with the project (adept/models/bundled.py).
    """
    text: tuple[str | tuple[str, str], ...] | Callable[[Row, Any], str]
    """Columns or (key, column) pairs, "key: value key: value"; or a renderer (row, options) -> source."""
    words: tuple[str, ...] | None = None
    """Label words by class id (T5's); None: free text or a number."""
    label: str = "label"
    """The column that holds the class."""
    values: tuple[Any, ...] | None = None
    """That column's values by class id; None: 0, 1, ..."""
    target: Callable[[Row, Any], Answer] | None = None
    """(row, options) -> (target, references), where there is no class."""
    expand: Callable[[Row], Iterable[Row]] | None = None
    """One hub row -> several, after the split."""
    group: Callable[[Row], str] | None = None
    """Rows with the same key are one question to the metrics."""
    metrics: tuple[str, ...] = ("accuracy",)
    """The first selects the checkpoint."""
    report: str | None = None
    """The metric that tables print, when it is not the first."""
    split: Split = Split.HALVE_VALIDATION
    splits: tuple[str, ...] = ("train", "validation")
    """The hub's names of what `split` reads."""
    max_train: int | None = None
    """Only the first so many training rows are used."""
    groups: tuple[str, ...] = ()
    """"glue" etc., written "@glue" on the command line; "large": more than 70,000 training rows."""
    max_source_len: int = 256
    sizes: tuple[int, int, int] | None = None
    """The paper's train / validation / test (QQP's 40,431 is the hub's 40,430)."""
    cue: str | None = "answer:"
    """Stands between source and target on decoder-only models. None: the target continues the source."""
    revision: str | None = None
    """Of the hub's data set; --data_revision wins over it."""
    on_hub: Mapping[str, str] = field(default_factory=dict)
    """Split -> what the hub calls it ("test+train"), or the URL of a .jsonl file."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Split -> file, of a --task_file."""
    decoder_only: bool = False
    """Its targets need a model that continues a text: programs, or signs that T5's vocabulary lacks."""
    runs_code: bool = False
    """Scoring executes generated programs."""
    cut_references: bool = False
    """Gold answers pass through the tokenizer and max_target_len, as predictions do (released code)."""
    sampling: Sampling | None = None
    """None: greedy."""
    completion_cleanup: str = "return"
    """How code metrics clean a completion (adept/metrics/code.py)."""
    options: TaskOptions = field(default_factory=TaskOptions)
    targets: str = "digits"
    """Which strings stand for classes unless a run says otherwise: 'digits' (the paper's tasks) or 'words'."""
    invalid_answers: str = "wrong"
    """What metrics make of an answer that is no label or number: 'wrong', or as in the 'released' code."""
    prefix: str | None = None
    """What --task_prefix puts in front of the source; None: the task's name."""
    prefixed: bool = False
    """Whether it does."""

    @property
    def reported(self) -> str:
        """The metric that tables print."""
        return self.report or self.metrics[0]

    def with_options(self, options: TaskOptions, targets: str, invalid_answers: str, prefixed: bool) -> Task:
        """The task as its options and those of every run have it. targets: 'digits' or 'words'."""
        return dataclasses.replace(
            self,
            options=options,
            targets=targets,
            invalid_answers=invalid_answers,
            prefixed=prefixed,
            **options.changes(),
        )

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Target strings by class id, or None for free text."""
        if self.words is None:
            return None
        return self.words if self.targets == "words" else tuple(str(i) for i in range(len(self.words)))

    def source(self, row: Row) -> str:
        """The source text. Raises KeyError for a missing column, ValueError for one that holds no text."""
        if callable(self.text):
            text = self.text(row, self.options)
        else:
            pairs = [(entry, entry) if isinstance(entry, str) else entry for entry in self.text]
            text = " ".join(f"{key}: {text_value(row, column)}" for key, column in pairs)
        return f"{self.prefix or self.name} {text}" if self.prefixed else text

    def answer(self, row: Row) -> Answer:
        """(training target, references that a prediction is compared with).

        Raises ValueError for a label outside the list.
        """
        if self.target is not None:
            return self.target(row, self.options)
        labels, label = self.labels, row[self.label]
        values = self.values or tuple(range(len(labels)))
        for string, value in zip(labels, values, strict=True):
            if label == str(value) if isinstance(label, CsvText) else type(label) is type(value) and label == value:
                return string, (string,)
        known = ", ".join(map(repr, values)) if self.values else f"0..{len(values) - 1}"
        raise ValueError(f"{self.label} {label!r} is not one of {known}")
