"""Metrics of tasks whose answer is a program (MBPP): pass@k of the programs that pass their tests in the sandbox."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from adept.metrics.answers import Answers, Metric, by_question
from adept.metrics.completions import clean_completion, cut_completion
from adept.metrics.sandbox import Program, run_all


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Probability that at least one of `k` samples passes, if they are drawn without replacement.

    The unbiased estimator 1 - C(n-c, k) / C(n, k) of Chen et al. 2021, where c = `passed` of n = `samples` pass.
    Raises ValueError unless 0 <= passed, k <= samples.
    """
    if not (0 <= passed <= samples and 0 <= k <= samples):
        raise ValueError(f"pass@{k} of {samples} samples of which {passed} passed")
    draws = math.comb(samples, k)
    # Integers until the one division: as floats the binomials overflow, and 1 - x loses a small probability's digits.
    return (draws - math.comb(samples - passed, k)) / draws


def mean_pass_at_k(passed: Sequence[bool], problems: Sequence[str], k: int) -> float | None:
    """Mean of pass@k over the problems in percent; None if some problem has fewer than `k` samples.

    Args:
        passed: whether each sample passes its tests.
        problems: the key of each sample's problem.
        k: how many samples are drawn.

    Raises ValueError if there are no samples, if the lengths differ, or if `k` is negative.
    """
    results = by_question(passed, problems)
    if not results:
        raise ValueError("no samples to score")
    if any(len(result) < k for result in results):
        return None
    return 100 * fmean(pass_at_k(len(result), sum(result), k) for result in results)


@functools.lru_cache(maxsize=4)
def run_tests(programs: tuple[Program, ...]) -> tuple[bool, ...]:
    """Returns whether each program passes its tests. Equal programs run once, also if several metrics ask for them."""
    distinct = list(dict.fromkeys(programs))
    verdicts = dict(zip(distinct, run_all(distinct), strict=True))
    return tuple(verdicts[program].passed for program in programs)


def programs_of_both_stages(answers: Answers) -> tuple[tuple[Program, ...], tuple[Program, ...]]:
    """Returns each sample's program after stage 1 and after stage 2 of the post-processing (see completions.py).

    A row's reference is (code before the completion, tests, name of the function under test).
    """
    first, second = [], []
    for completion, (before, tests, function) in zip(answers.predictions, answers.references, strict=True):
        stage1 = cut_completion(completion, body=bool(before))
        stage2 = clean_completion(stage1, before, answers.cleanup)
        first.append(Program(before + stage1, tests, function))
        second.append(Program(before + stage2, tests, function))
    return tuple(first), tuple(second)


def problem_keys(answers: Answers) -> Sequence[str]:
    """Returns the key of each sample's problem; without groups every sample is a problem of its own."""
    return answers.groups if answers.groups is not None else [str(i) for i in range(len(answers.predictions))]


def pass_at_k_metric(k: int) -> Metric:
    """Returns the metric pass@k after stage 1 alone; it is None if some problem has fewer than `k` samples."""

    def metric(answers: Answers) -> float | None:
        problems = problem_keys(answers)
        if min(Counter(problems).values()) < k:
            return None  # before anything is run
        first, _ = programs_of_both_stages(answers)
        return mean_pass_at_k(run_tests(first), problems, k)

    return metric


def pass_at_1_two_versions(answers: Answers) -> float:
    """pass@1 in percent if the programs of both stages count as samples of their problem.

    This is what Table 7 reports: all its values are multiples of 1/974, and half of them are no multiples of 1/487.
    """
    first, second = programs_of_both_stages(answers)
    problems = problem_keys(answers)
    return mean_pass_at_k((*run_tests(first), *run_tests(second)), (*problems, *problems), 1)


pass_at_1 = pass_at_k_metric(1)
pass_at_10 = pass_at_k_metric(10)
