"""SuperGLUE's tasks (Wang et al. 2019), with the texts of WSC, MultiRC and ReCoRD."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from adept.base.options import option
from adept.tasks.rows import Answer, Row, list_value, text_value
from adept.tasks.task import Split, Task, TaskOptions

SUPERGLUE = "aps/super_glue"
TRUTH = ("False", "True")


class RecordOptions(TaskOptions):
    """Options of ReCoRD."""

    record_scoring: Literal["query", "row"] = option(
        "query", "ReCoRD: by 'query', max over its answers; or by 'row', each with one answer (released code)"
    )
    cut_references: bool = option(
        False, "free text: gold answers are cut to max_target_len tokens as predictions are (released code)"
    )

    def changes(self) -> dict[str, Any]:
        by_row = {"target": record_own_answer, "group": None} if self.record_scoring == "row" else {}
        return {**by_row, "cut_references": self.cut_references}


def marked_spans(row: Row, options: TaskOptions) -> str:
    """WSC: "* noun *" and "# pronoun #" (T5's).

    A span that does not stand at its word index stays unmarked, as in T5's code.
    """
    marked = mark_span(text_value(row, "text"), text_value(row, "span1_text"), int(row["span1_index"]), "*")
    shift = 2 if row["span1_index"] < row["span2_index"] else 0  # the two marks count as words
    return f"text: {mark_span(marked, text_value(row, 'span2_text'), int(row['span2_index']) + shift, '#')}"


def mark_span(text: str, span: str, index: int, sign: str) -> str:
    """`text` with `sign` around `span` where that stands at word number `index`."""
    return re.sub(rf"^((?:\S+\s){{{index}}})({re.escape(span)})", rf"\1{sign} \2 {sign}", text)


def without_markup(row: Row, options: TaskOptions) -> str:
    """MultiRC: <br> becomes a blank, <b> and </b> go (T5's). The paragraph stands last, so truncation takes its end."""

    def clean(column: str) -> str:
        return re.sub(r"</?b>", "", text_value(row, column).replace("<br>", " "))

    return f"question: {clean('question')} answer: {clean('answer')} paragraph: {clean('paragraph')}"


def multirc_question(row: Row) -> str:
    """MultiRC: the answers of one question are scored together by its exact match."""
    return f"{row['idx']['paragraph']}-{row['idx']['question']}"


def record_query_text(row: Row, options: TaskOptions) -> str:
    """ReCoRD (T5's): highlights join the passage as sentences."""
    passage = re.sub(r"([.?!\"'])\n@highlight\n", r"\1 ", text_value(row, "passage")).replace("\n@highlight\n", ". ")
    entities = ", ".join(list_value(row, "entities"))
    return f"record query: {text_value(row, 'query')} entities: {entities} passage: {passage}"


def row_per_answer(row: Row) -> Iterator[Row]:
    """ReCoRD: a query with three answers makes three rows, in training and evaluation (T5's)."""
    for answer in list_value(row, "answers"):
        yield {**row, "answer": answer}


def record_answers(row: Row, options: TaskOptions) -> Answer:
    """ReCoRD: one answer is learned, any of the query's is right."""
    return row["answer"], tuple(row["answers"])


def record_own_answer(row: Row, options: TaskOptions) -> Answer:
    """ReCoRD: one answer is learned and alone right (released code)."""
    return row["answer"], (row["answer"],)


def record_query(row: Row) -> str:
    """ReCoRD: the rows of one query are scored together."""
    return f"{row['idx']['passage']}-{row['idx']['query']}"


ROWS = (
    Task("multirc", (SUPERGLUE, "multirc"), without_markup, TRUTH, group=multirc_question,
         metrics=("f1", "question_em"), prefix="superglue-multirc", groups=("superglue",), max_source_len=348,
         sizes=(27_243, 2_424, 2_424)),
    Task("boolq", (SUPERGLUE, "boolq"), ("question", "passage"), TRUTH,
         prefix="superglue-boolq", groups=("superglue",), sizes=(9_427, 1_635, 1_635)),
    Task("wic", (SUPERGLUE, "wic"), ("sentence1", "sentence2", "word"), TRUTH,
         prefix="superglue-wic", groups=("superglue",), sizes=(5_428, 319, 319)),
    Task("wsc", (SUPERGLUE, "wsc.fixed"), marked_spans, TRUTH,
         prefix="superglue-wsc.fixed", groups=("superglue",), sizes=(554, 52, 52)),
    Task("cb", (SUPERGLUE, "cb"), ("premise", "hypothesis"), ("entailment", "contradiction", "neutral"),
         metrics=("f1_macro", "accuracy"), report="accuracy", prefix="superglue-cb", groups=("superglue",),
         sizes=(250, 28, 28)),
    Task("record", (SUPERGLUE, "record"), record_query_text, target=record_answers, options=RecordOptions(),
         expand=row_per_answer, group=record_query,
         metrics=("squad_f1", "exact_match"), split=Split.CARVE_1000, prefix="superglue-record",
         groups=("superglue", "large"), max_source_len=512, sizes=(137_484, 1_370, 15_176)),
)  # fmt: skip
