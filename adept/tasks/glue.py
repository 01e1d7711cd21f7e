"""GLUE's tasks (Wang et al. 2019)."""

from __future__ import annotations

from typing import Any, Literal

from adept.base.options import option
from adept.tasks.rows import Answer, Row
from adept.tasks.task import Split, Task, TaskOptions

GLUE = "nyu-mll/glue"
ENTAILMENT = ("entailment", "not_entailment")


class StsbOptions(TaskOptions):
    """Options of STS-B."""

    stsb_rounding: Literal[0.2, 0.1] = option(
        0.2, "STS-B targets: 0.2 (T5), gold unrounded; or 0.1, gold rounded too (released code)"
    )

    def changes(self) -> dict[str, Any]:
        return {"target": similarity_to_tenths if self.stsb_rounding == 0.1 else similarity_to_fifths}


def similarity(row: Row) -> float:
    """The gold score. Raises ValueError where it is none."""
    if not 0 <= (score := float(row["label"])) <= 5:
        raise ValueError(f"label {score} is no similarity of 0 to 5")
    return score


def similarity_to_fifths(row: Row, options: TaskOptions) -> Answer:
    """Rounded to 0.2 (T5's), compared with the gold score as it is."""
    score = similarity(row)
    return f"{round(score * 5) / 5:.1f}", (str(score),)


def similarity_to_tenths(row: Row, options: TaskOptions) -> Answer:
    """Rounded to 0.1 and compared with itself.

    So the released code does, whose formula multiplies and divides by 5 before it rounds.
    """
    rounded = str(round(similarity(row), 1))
    return rounded, (rounded,)


ROWS = (
    Task("mnli", (GLUE, "mnli"), ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"),
         split=Split.NATIVE, splits=("train", "validation_mismatched", "validation_matched"),
         groups=("glue", "large"), sizes=(392_702, 9_832, 9_815)),
    Task("qqp", (GLUE, "qqp"), ("question1", "question2"), ("not_duplicate", "duplicate"),
         metrics=("accuracy", "f1"), split=Split.CARVE_1000, groups=("glue", "large"), sizes=(362_846, 1_000, 40_430)),
    Task("qnli", (GLUE, "qnli"), ("question", "sentence"), ENTAILMENT,
         split=Split.CARVE_1000, groups=("glue", "large"), sizes=(103_743, 1_000, 5_463)),
    Task("sst2", (GLUE, "sst2"), ("sentence",), ("negative", "positive"),
         split=Split.CARVE_1000, groups=("glue",), sizes=(66_349, 1_000, 872)),
    Task("stsb", (GLUE, "stsb"), ("sentence1", "sentence2"), target=similarity_to_fifths, options=StsbOptions(),
         metrics=("pearson", "spearman"), groups=("glue",), sizes=(5_749, 750, 750)),
    Task("mrpc", (GLUE, "mrpc"), ("sentence1", "sentence2"), ("not_equivalent", "equivalent"),
         metrics=("accuracy", "f1"), groups=("glue",), sizes=(3_668, 204, 204)),
    Task("rte", (GLUE, "rte"), ("sentence1", "sentence2"), ENTAILMENT,
         groups=("glue",), sizes=(2_490, 138, 139)),
    Task("cola", (GLUE, "cola"), ("sentence",), ("unacceptable", "acceptable"),
         metrics=("matthews",), groups=("glue",), sizes=(8_551, 521, 522)),
)  # fmt: skip
