"""Extractive question answering: MRQA's tasks (Fisch et al. 2019), and SQuAD, a source of transfer (Appendix B.2)."""

from __future__ import annotations

from typing import Any, Literal

import regex

from adept.base.options import option
from adept.tasks.rows import Answer, Row, list_value, text_value
from adept.tasks.task import Split, Task, TaskOptions


class QuestionAnsweringOptions(TaskOptions):
    """Options of MRQA's tasks."""

    qa_references: Literal["all", "first"] = option(
        "all", "question answering: 'all' answers are right (max over them), or the 'first' alone (released code)"
    )
    pad_punctuation: bool = option(
        True, "question answering: blanks around punctuation in texts and answers (released code, after T5)"
    )
    cut_references: bool = option(
        False, "free text: gold answers are cut to max_target_len tokens as predictions are (released code)"
    )

    def changes(self) -> dict[str, Any]:
        target = {"target": first_answer} if self.qa_references == "first" else {}
        return {**target, "cut_references": self.cut_references}


class SquadOptions(QuestionAnsweringOptions):
    """Options of SQuAD."""

    squad_target: Literal["first", "printed"] = option(
        "first", "SQuAD's target: the 'first' answer, or the answers' list as Python prints it (released code)"
    )

    def changes(self) -> dict[str, Any]:
        printed = {"target": printed_answers} if self.squad_target == "printed" else {}
        return {**super().changes(), **printed}


def pad_punctuation(text: str) -> str:
    """Puts blanks around whatever is no letter, digit, accent, underscore or blank: "U.S." -> "U . S .".

    T5's preprocessing of SQuAD. The released code leaves a blank at the ends, which T5's tokenizer drops.
    """
    return " ".join(regex.sub(r"([^_\s\p{N}\p{L}\p{M}])", r" \1 ", text).split())


def pad_punctuation_if(wanted: bool, text: str) -> str:
    return pad_punctuation(text) if wanted else text


def question_context(row: Row, options: QuestionAnsweringOptions) -> str:
    """ "question: ... context: ..."."""
    question, context = (
        pad_punctuation_if(options.pad_punctuation, text_value(row, column)) for column in ("question", "context")
    )
    return f"question: {question} context: {context}"


def all_answers(row: Row, options: QuestionAnsweringOptions) -> Answer:
    """The first answer is learned, any is right (SQuAD's evaluation)."""
    answers = tuple(pad_punctuation_if(options.pad_punctuation, answer) for answer in list_value(row, "answers"))
    return answers[0], answers


def first_answer(row: Row, options: QuestionAnsweringOptions) -> Answer:
    """The first answer is learned and alone right (released code)."""
    answer = pad_punctuation_if(options.pad_punctuation, list_value(row, "answers")[0])
    return answer, (answer,)


def printed_answers(row: Row, options: QuestionAnsweringOptions) -> Answer:
    """The answers as Python prints their list, as the released code does for SQuAD: "[ ' Denver Broncos ' ]"."""
    answer = pad_punctuation_if(options.pad_punctuation, str(list_value(row, "answers")))
    return answer, (answer,)


def question_answering(
    name: str, hub: str, groups: tuple[str, ...], sizes: tuple[int, int, int] | None, **fields
) -> Task:
    """MRQA's form: context, question and a list of answers."""
    return Task(
        name, (hub, None), question_context, target=all_answers, metrics=("exact_match", "squad_f1"), report="squad_f1",
        split=Split.CARVE_1000, groups=groups, max_source_len=512, sizes=sizes,
        **{"options": QuestionAnsweringOptions(), **fields},
    )  # fmt: skip


ROWS = (
    question_answering("nq", "lucadiliello/naturalquestionsshortqa", ("mrqa", "large"), (103_071, 1_000, 12_836)),
    question_answering("hotpotqa", "lucadiliello/hotpotqa", ("mrqa", "large"), (71_928, 1_000, 5_901)),
    question_answering("searchqa", "lucadiliello/searchqa", ("mrqa", "large"), (116_384, 1_000, 16_980)),
    question_answering("newsqa", "lucadiliello/newsqa", ("mrqa", "large"), (73_160, 1_000, 4_212)),
)

SQUAD = question_answering("squad", "lucadiliello/squad", (), None, options=SquadOptions())
