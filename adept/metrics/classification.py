"""Metrics of tasks whose answer is one of a few labels: GLUE, SuperGLUE and the like."""

from __future__ import annotations

import warnings
from statistics import fmean

import numpy as np
from sklearn.metrics import f1_score, matthews_corrcoef

from adept.metrics.answers import Answers, by_question


def rows_right(answers: Answers) -> list[bool]:
    """Whether each row's prediction is, character by character, one of its references."""
    rows = zip(answers.predictions, answers.references, strict=True)
    return [prediction in references for prediction, references in rows]


def accuracy(answers: Answers) -> float:
    """Percent of rows whose prediction is, character by character, one of the references."""
    return 100 * float(np.mean(rows_right(answers)))


def question_em(answers: Answers) -> float:
    """Percent of questions whose rows are all right.

    MultiRC's exact match, where each row is one answer option (SuperGLUE, Wang et al. 2019). If questions are numbered
    per paragraph, the group key must name the paragraph too.
    """
    return 100 * fmean(all(question) for question in by_question(rows_right(answers), answers.groups))


def class_ids(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Returns (predicted [N], gold [N]) class ids; the id of an invalid prediction is -1.

    Raises ValueError if a reference is none of the labels.
    """
    index = {label: i for i, label in enumerate(answers.labels or ())}
    for references in answers.references:
        if references[0] not in index:
            raise ValueError(f"reference {references[0]!r} is none of the labels {answers.labels}")
    predicted = [index.get(prediction, -1) for prediction in answers.predictions]
    gold = [index[references[0]] for references in answers.references]
    return np.array(predicted), np.array(gold)


def binary_class_ids(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """`class_ids` of a task with two classes, in which an invalid prediction becomes the opposite of its gold class."""
    predicted, gold = class_ids(answers)
    return np.where(predicted < 0, 1 - gold, predicted), gold


def f1(answers: Answers) -> float:
    """F1 of class 1 in percent; an invalid prediction becomes the opposite of its gold class.

    The released code's f1_score_with_invalid. Over all answer options of MultiRC this is its F1a.
    """
    predicted, gold = binary_class_ids(answers)
    return 100 * float(f1_score(gold, predicted, zero_division=0))


def f1_macro(answers: Answers) -> float:
    """Mean of the F1 of all classes in percent; an invalid prediction lowers the recall of its gold class only.

    The released code's metric for CB.
    """
    predicted, gold = class_ids(answers)
    labels = range(len(answers.labels))
    return 100 * float(f1_score(gold, predicted, labels=labels, average="macro", zero_division=0))


def matthews(answers: Answers) -> float:
    """Matthews correlation in percent; 0 if all predictions or all references are of one class.

    An invalid prediction becomes the opposite of its gold class. In the released code's metric, of answers.invalid
    "released", each invalid string is a class of its own.
    """
    if answers.invalid == "released":
        predicted, gold = list(answers.predictions), [references[0] for references in answers.references]
    else:
        predicted, gold = binary_class_ids(answers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # one class only: the value is 0, which needs no warning
        return 100 * float(matthews_corrcoef(gold, predicted))
