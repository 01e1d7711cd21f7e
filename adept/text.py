"""The irregular renderers: what is more than "column: value" in a task's source and target, each with its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import regex

if TYPE_CHECKING:
    from adept.config import RunConfig

Row = Mapping[str, Any]
Answer = tuple[str, tuple[str, ...]]
"""(training target, references that a prediction is compared with)"""


class Untyped(str):
    """A cell of a .csv file, where the number 1 and the text "1" look the same."""


def cell(row: Row, column: str) -> str:
    """A column's value as text. Raises KeyError for a missing column, ValueError for one that holds no text or number."""
    value = row[column]
    if value is None or isinstance(value, list | dict | bytes) or value != value:  # NaN is how tables write a missing text
        raise ValueError(f"column '{column}' holds {value!r:.40} where text is needed")
    return str(value)


def listed(row: Row, column: str) -> list[str]:
    """A column that holds one or more texts. Raises ValueError where it does not."""
    value = row[column]
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ValueError(f"column '{column}' holds {value!r:.40} where a list of texts is needed")
    return value


# Question answering (MRQA, SQuAD; Section 4.1) --------------------------------------------------------------------------


def pad_punctuation(text: str) -> str:
    """Blanks around whatever is no letter, digit, accent, underscore or blank: "U.S." -> "U . S ." (T5's SQuAD preprocessing).

    The released code leaves a blank at the ends, which T5's tokenizer drops.
    """
    return " ".join(regex.sub(r"([^_\s\p{N}\p{L}\p{M}])", r" \1 ", text).split())


def spaced(text: str, config: RunConfig) -> str:
    return pad_punctuation(text) if config.pad_punctuation else text


def question_context(row: Row, config: RunConfig) -> str:
    return f"question: {spaced(cell(row, 'question'), config)} context: {spaced(cell(row, 'context'), config)}"


def all_answers(row: Row, config: RunConfig) -> Answer:
    """The first answer is learned, any is right (SQuAD's evaluation)."""
    answers = tuple(spaced(answer, config) for answer in listed(row, "answers"))
    return answers[0], answers


def first_answer(row: Row, config: RunConfig) -> Answer:
    """The first answer is learned and alone right (released code)."""
    answer = spaced(listed(row, "answers")[0], config)
    return answer, (answer,)


def printed_answers(row: Row, config: RunConfig) -> Answer:
    """The answers as Python prints their list, as the released code does for SQuAD: "[ ' Denver Broncos ' ]"."""
    answer = spaced(str(listed(row, "answers")), config)
    return answer, (answer,)


# SuperGLUE --------------------------------------------------------------------------------------------------------------


def marked_spans(row: Row, config: RunConfig) -> str:
    """WSC: "* noun *" and "# pronoun #" (T5's). A span that does not stand at its word index stays unmarked, as there."""
    marked = mark(cell(row, "text"), cell(row, "span1_text"), int(row["span1_index"]), "*")
    shift = 2 if row["span1_index"] < row["span2_index"] else 0  # the two marks count as words
    return f"text: {mark(marked, cell(row, 'span2_text'), int(row['span2_index']) + shift, '#')}"


def mark(text: str, span: str, index: int, sign: str) -> str:
    return re.sub(rf"^((?:\S+\s){{{index}}})({re.escape(span)})", rf"\1{sign} \2 {sign}", text)


def without_markup(row: Row, config: RunConfig) -> str:
    """MultiRC: <br> becomes a blank, <b> and </b> go (T5's). The paragraph stands last, so truncation takes its end."""

    def clean(column: str) -> str:
        return re.sub(r"</?b>", "", cell(row, column).replace("<br>", " "))

    return f"question: {clean('question')} answer: {clean('answer')} paragraph: {clean('paragraph')}"


def question_of(row: Row) -> str:
    """MultiRC: the answers of one question are scored together by its exact match."""
    return f"{row['idx']['paragraph']}-{row['idx']['question']}"


def record_query(row: Row, config: RunConfig) -> str:
    """ReCoRD (T5's): highlights join the passage as sentences."""
    passage = re.sub(r"([.?!\"'])\n@highlight\n", r"\1 ", cell(row, "passage")).replace("\n@highlight\n", ". ")
    return f"record query: {cell(row, 'query')} entities: {', '.join(listed(row, 'entities'))} passage: {passage}"


def row_per_answer(row: Row) -> Iterator[Row]:
    """ReCoRD: a query with three answers makes three rows, in training and evaluation (T5's)."""
    for answer in listed(row, "answers"):
        yield {**row, "answer": answer}


def record_answers(row: Row, config: RunConfig) -> Answer:
    return row["answer"], tuple(row["answers"])


def record_own_answer(row: Row, config: RunConfig) -> Answer:
    return row["answer"], (row["answer"],)


def query_of(row: Row) -> str:
    return f"{row['idx']['passage']}-{row['idx']['query']}"


# STS-B ------------------------------------------------------------------------------------------------------------------


def similarity(row: Row) -> float:
    """The gold score. Raises ValueError where it is none."""
    if not 0 <= (score := float(row["label"])) <= 5:
        raise ValueError(f"label {score} is no similarity of 0 to 5")
    return score


def similarity_to_fifths(row: Row, config: RunConfig) -> Answer:
    """Rounded to 0.2 (T5's), compared with the gold score as it is."""
    score = similarity(row)
    return f"{round(score * 5) / 5:.1f}", (str(score),)


def similarity_to_tenths(row: Row, config: RunConfig) -> Answer:
    """Rounded to 0.1 and compared with itself (released code, whose formula multiplies and divides by 5 before it rounds)."""
    rounded = str(round(similarity(row), 1))
    return rounded, (rounded,)


# MBPP (Section 4.3; LoPA's protocol) ------------------------------------------------------------------------------------
# References of a program are (code that stands before the completion, tests, name of the function under test).


def docstring_prompt(row: Row, config: RunConfig) -> str:
    """MBXP's form: signature and docstring with three examples."""
    return cell(row, "prompt")


def function_body(row: Row, config: RunConfig) -> Answer:
    return cell(row, "canonical_solution"), (cell(row, "prompt"), cell(row, "test"), cell(row, "entry_point"))


def described_prompt(row: Row, config: RunConfig) -> str:
    """The original form (Austin et al. 2021, Section 4.1): a description, and the tests that the program should pass."""
    tests = "\n".join(listed(row, "test_list"))
    return (
        f"You are an expert Python programmer, and here is your task: {cell(row, 'text')} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


def whole_program(row: Row, config: RunConfig) -> Answer:
    code = cell(row, "code").replace("\r\n", "\n")
    tests = "\n".join([cell(row, "test_setup_code").replace("\r\n", "\n"), *listed(row, "test_list")]).strip()
    return f"{code}\n[DONE]", ("", tests, tested_function(code, tests))


def tested_function(code: str, tests: str) -> str:
    """The function of `code` that `tests` calls. Raises ValueError where there is none."""
    called = {node.func.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    for node in reversed(ast.parse(code).body):
        if isinstance(node, ast.FunctionDef) and node.name in called:
            return node.name
    raise ValueError(f"the tests call no function of the program: {tests!r:.60}")
