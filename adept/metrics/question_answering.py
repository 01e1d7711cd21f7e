"""Metrics of tasks whose answer is free text: SQuAD v1.1's exact match and token F1 (SQuAD, MRQA, ReCoRD)."""

from __future__ import annotations

import operator
import re
import string
from collections import Counter
from collections.abc import Callable
from statistics import fmean

from adept.metrics.answers import Answers, Metric, by_question

# ASCII only: dashes and quotes beyond it stay, as in SQuAD's script
DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalise_answer(text: str) -> str:
    """Lower case without ASCII punctuation, articles and superfluous white space, removed in SQuAD v1.1's order.

    The order matters: "a." is an article, "U.S." is the word "us", and "a–b" loses its "a" at the word boundary.
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(DELETE_PUNCTUATION)).split())


def token_f1(prediction: str, reference: str) -> float:
    """F1 (0 to 1) of two bags of blank-separated words; 0 if they share no word, so also if both are empty."""
    predicted, expected = prediction.split(), reference.split()
    common = (Counter(predicted) & Counter(expected)).total()
    return 2 * common / (len(predicted) + len(expected)) if common else 0.0


def squad_metric(compare: Callable[[str, str], float]) -> Metric:
    """Returns a metric of SQuAD v1.1 (Rajpurkar et al. 2016): `compare` (0 to 1) on normalised strings, in percent.

    A row scores the best of its references. Rows are averaged within each question, then questions are averaged. So a
    query of ReCoRD counts as one question, however many rows it has; without groups this is the mean over rows. Strings
    that are empty after normalisation ("the", "...") follow the official script: exact match is 1 if both are empty,
    token F1 is 0 if either is.
    """

    def metric(answers: Answers) -> float:
        scores = []
        for prediction, references in zip(answers.predictions, answers.references, strict=True):
            predicted = normalise_answer(prediction)
            scores.append(max(compare(predicted, normalise_answer(reference)) for reference in references))
        return 100 * fmean(fmean(question) for question in by_question(scores, answers.groups))

    return metric


exact_match = squad_metric(operator.eq)
squad_f1 = squad_metric(token_f1)
