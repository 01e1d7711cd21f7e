"""Metrics: predicted strings and references in, percent out.

scikit-learn and scipy compute; the `evaluate` package is not used, because its metrics are scripts that
`evaluate.load` downloads from a hub, so none of them works offline.

A prediction that is no label counts as wrong (T5's convention): it can match no reference, and where a metric needs a
class it takes the class that is wrong for this row.
"""

from __future__ import annotations

import functools
import math
import operator
import re
import string
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy import stats
from sklearn import metrics as sk

from adept.sandbox import Program, run_all
from adept.text import clean_completion, cut_completion

# Interface --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
    """Predictions of one evaluation and what they are compared with, in the same order.

    Raises ValueError when there are no rows, when the lengths differ, and for a row without a reference.
    """

    predictions: Sequence[str]
    references: Sequence[tuple[str, ...]]  # one or more right answers a row
    labels: tuple[str, ...] | None = None  # label strings by class id; None: free text or numbers
    groups: Sequence[str] | None = None  # rows with the same key belong to one question; None: each row is its own
    cleanup: str = "return"  # read by code metrics only

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


Metric = Callable[[Answers], float | None]  # None: not defined here (too few samples), left out of the scores


def by_question(values: Sequence[float], groups: Sequence[str] | None) -> list[list[float]]:
    """The rows' values, one list a question; equal keys need not be neighbours. Raises ValueError when the lengths differ."""
    if groups is None:
        return [[value] for value in values]
    questions = defaultdict(list)
    for value, group in zip(values, groups, strict=True):
        questions[group].append(value)
    return list(questions.values())


# Classes ----------------------------------------------------------------------------------------------------------------


def accuracy(answers: Answers) -> float:
    """Percent of rows whose prediction is, character by character, one of the references."""
    return 100 * float(np.mean([p in r for p, r in zip(answers.predictions, answers.references, strict=True)]))


def question_em(answers: Answers) -> float:
    """Percent of questions all of whose rows are right: MultiRC's EM, with an answer option a row (SuperGLUE, Wang et al. 2019).

    The group key has to name the paragraph too where questions are counted anew in each paragraph.
    """
    right = [p in r for p, r in zip(answers.predictions, answers.references, strict=True)]
    return 100 * fmean(all(question) for question in by_question(right, answers.groups))


def classes(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """(predicted [N], gold [N]) class ids; an invalid prediction is -1. Raises ValueError for gold without a class."""
    index = {label: i for i, label in enumerate(answers.labels or ())}
    for references in answers.references:
        if references[0] not in index:
            raise ValueError(f"reference {references[0]!r} is none of the labels {answers.labels}")
    return np.array([index.get(p, -1) for p in answers.predictions]), np.array([index[r[0]] for r in answers.references])


def f1(answers: Answers) -> float:
    """F1 of class 1 in percent; an invalid prediction becomes the opposite of its gold class (the released code's f1_score_with_invalid).

    Over all answer options of MultiRC this is its F1a.
    """
    predicted, gold = classes(answers)
    predicted = np.where(predicted < 0, 1 - gold, predicted)
    return 100 * float(sk.f1_score(gold, predicted, zero_division=0))


def f1_macro(answers: Answers) -> float:
    """Mean F1 over all classes in percent; an invalid prediction lowers its gold class's recall only (the released code's CB metric)."""
    predicted, gold = classes(answers)
    return 100 * float(sk.f1_score(gold, predicted, labels=range(len(answers.labels)), average="macro", zero_division=0))


def matthews(answers: Answers) -> float:
    """Matthews correlation in percent, 0 where one side is one class; an invalid prediction becomes the opposite of its gold class."""
    predicted, gold = classes(answers)
    predicted = np.where(predicted < 0, 1 - gold, predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # one class only: 0, not a warning
        return 100 * float(sk.matthews_corrcoef(gold, predicted))


# Numbers ----------------------------------------------------------------------------------------------------------------


def numbers(strings: Sequence[str]) -> np.ndarray:
    """Floats [N]; what is no finite number becomes -1 (T5's string_to_float)."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            return -1.0
        return value if np.isfinite(value) else -1.0

    return np.array([number(s) for s in strings])


def correlation(statistic: Callable) -> Metric:
    """A metric: `statistic` between predicted and gold numbers in percent, 0 for a single row and where one side is constant."""

    def metric(answers: Answers) -> float:
        if len(answers.predictions) < 2:
            return 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a constant input has no correlation: 0, not a warning
            value = statistic(numbers(answers.predictions), numbers([r[0] for r in answers.references]))[0]
        return 100 * float(np.nan_to_num(value))

    return metric


# Free text --------------------------------------------------------------------------------------------------------------

PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII only: dashes and quotes beyond it stay, as in SQuAD
ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalise(text: str) -> str:
    """Lower case without ASCII punctuation, articles and superfluous white space, in SQuAD v1.1's order.

    The order shows: "a." is an article, "U.S." the word "us", and "a–b" loses its "a" at the word boundary.
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def token_f1(prediction: str, reference: str) -> float:
    """F1 (0 to 1) of two bags of blank-separated words; 0 without a common word, so also when both are empty."""
    predicted, expected = prediction.split(), reference.split()
    common = (Counter(predicted) & Counter(expected)).total()
    return 2 * common / (len(predicted) + len(expected)) if common else 0.0


def squad(compare: Callable[[str, str], float]) -> Metric:
    """A metric of SQuAD v1.1 (Rajpurkar et al. 2016): `compare` (0 to 1) on normalised strings, in percent.

    The best of a row's references counts; rows are averaged in each question, then questions. So a ReCoRD query is one
    question however many rows its answers make, and without groups this is the plain mean over rows. Strings that are
    empty once normalised ("the", "...") follow the official script: exact match 1 when both are, token F1 0 when either is.
    """

    def metric(answers: Answers) -> float:
        scores = []
        for prediction, references in zip(answers.predictions, answers.references, strict=True):
            predicted = normalise(prediction)
            scores.append(max(compare(predicted, normalise(reference)) for reference in references))
        return 100 * fmean(fmean(question) for question in by_question(scores, answers.groups))

    return metric


# Programs ---------------------------------------------------------------------------------------------------------------


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Chance (0 to 1) that one of `k` samples passes, drawn without replacement from `samples` of which `passed` do.

    The unbiased estimator of Chen et al. 2021, 1 - C(n-c, k) / C(n, k). Raises ValueError unless 0 <= passed, k <= samples.
    """
    if not (0 <= passed <= samples and 0 <= k <= samples):
        raise ValueError(f"pass@{k} of {samples} samples of which {passed} passed")
    draws = math.comb(samples, k)
    # one division of integers, rounded once: as floats the binomials overflow, and 1 - x loses the digits of small chances
    return (draws - math.comb(samples - passed, k)) / draws


def mean_pass_at_k(passes: Sequence[bool], groups: Sequence[str], k: int) -> float | None:
    """Mean of pass@k over the groups (problems) in percent; None where some group has fewer than `k` samples.

    Raises ValueError when there are no samples, when the lengths differ, and for a negative `k`.
    """
    problems = by_question(passes, groups)
    if not problems:
        raise ValueError("no samples to score")
    if any(len(problem) < k for problem in problems):
        return None
    return 100 * fmean(pass_at_k(len(problem), sum(problem), k) for problem in problems)


@functools.lru_cache(maxsize=4)
def passes(programs: tuple[Program, ...]) -> tuple[bool, ...]:
    """Which programs pass their tests, in adept/sandbox.py. Equal programs are run once; metrics that share them, too."""
    distinct = list(dict.fromkeys(programs))
    verdicts = dict(zip(distinct, run_all(distinct), strict=True))
    return tuple(verdicts[program].passed for program in programs)


def versions(answers: Answers) -> tuple[tuple[Program, ...], tuple[Program, ...]]:
    """Each sample after stage 1 and after stage 2 of LoPA's post-processing. References are (code before it, tests, function)."""
    first, second = [], []
    for completion, (before, tests, function) in zip(answers.predictions, answers.references, strict=True):
        stage1 = cut_completion(completion, body=bool(before))
        stage2 = clean_completion(stage1, before, answers.cleanup)
        first.append(Program(before + stage1, tests, function))
        second.append(Program(before + stage2, tests, function))
    return tuple(first), tuple(second)


def pass_at(k: int) -> Metric:
    """Stage 1 alone."""

    def metric(answers: Answers) -> float | None:
        first, _ = versions(answers)
        groups = groups_of(answers)
        if min(Counter(groups).values()) < k:
            return None
        return mean_pass_at_k(passes(first), groups, k)

    return metric


def pass_at_1_two_versions(answers: Answers) -> float:
    """What Table 7 holds: both versions of a sample count as samples (all its values are multiples of 1/974, half of them not of 1/487)."""
    first, second = versions(answers)
    groups = groups_of(answers)
    return mean_pass_at_k((*passes(first), *passes(second)), (*groups, *groups), 1)


def groups_of(answers: Answers) -> Sequence[str]:
    return answers.groups if answers.groups is not None else [str(i) for i in range(len(answers.predictions))]


# Table ------------------------------------------------------------------------------------------------------------------

METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "question_em": question_em,
    "f1": f1,
    "f1_macro": f1_macro,
    "matthews": matthews,
    "pearson": correlation(stats.pearsonr),
    "spearman": correlation(stats.spearmanr),
    "exact_match": squad(operator.eq),
    "squad_f1": squad(token_f1),
    "pass@1_two_versions": pass_at_1_two_versions,
    "pass@1": pass_at(1),
    "pass@10": pass_at(10),
}


def score(names: Sequence[str], answers: Answers) -> dict[str, float]:
    """{metric: percent}, in the order of `names`, without those that are not defined on these answers."""
    found = ((name, METRICS[name](answers)) for name in names)
    return {name: value for name, value in found if value is not None}
