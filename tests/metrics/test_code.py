"""pass@k against enumerations of all draws, and the scores of MBPP completions."""

import math
import random
from fractions import Fraction
from itertools import combinations

import pytest

from adept.metrics import METRICS, Answers, score
from adept.metrics.code import mean_pass_at_k, pass_at_k


@pytest.mark.parametrize("samples", range(9))
def test_pass_at_k_equals_the_enumeration_of_all_draws(samples):
    for passed in range(samples + 1):
        results = [True] * passed + [False] * (samples - passed)
        for k in range(samples + 1):
            draws = [any(draw) for draw in combinations(results, k)]
            assert pass_at_k(samples, passed, k) == float(Fraction(sum(draws), len(draws)))


@pytest.mark.parametrize("samples", [50, 200, 1_000, 20_000])
def test_pass_at_k_is_exact_for_many_samples(samples):
    """Equal, not close, to the product 1 - prod(1 - k / i) in fractions."""
    for passed in (0, 1, 3, 30):
        for k in (1, 10, 40, samples // 2, samples):
            fails = math.prod((1 - Fraction(k, i) for i in range(samples - passed + 1, samples + 1)), start=Fraction(1))
            assert pass_at_k(samples, passed, k) == float(1 - max(fails, Fraction(0)))


def test_pass_at_k_by_hand():
    assert pass_at_k(1, 1, 1) == 1 and pass_at_k(1, 0, 1) == 0
    assert pass_at_k(10, 3, 1) == 0.3
    assert pass_at_k(4, 2, 2) == 5 / 6  # of 6 pairs only that of the two failures fails
    assert pass_at_k(5, 3, 3) == 1  # three samples cannot all be among two failures


@pytest.mark.parametrize(
    ("samples", "passed", "k"), [(3, 1, 4), (3, 4, 1), (-1, 0, 0), (3, -1, 1), (3, 1, -1), (0, 0, 1), (-1, -1, -1)]
)
def test_pass_at_k_refuses_impossible_counts(samples, passed, k):
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(samples, passed, k)


def test_mean_pass_at_k_by_hand():
    """Problem a passes 1 of 2, problem b 0 of 3; a mean over problems, not over samples."""
    passes, groups = [False, True, False, False, False], ["b", "a", "a", "b", "b"]
    assert mean_pass_at_k(passes, groups, 1) == 25
    assert mean_pass_at_k(passes, groups, 2) == 50
    assert mean_pass_at_k(passes, groups, 3) is None  # a has two samples only
    assert mean_pass_at_k([True], ["a"], 1) == 100
    assert mean_pass_at_k([False], ["a"], 1) == 0  # a value, not the None of too few samples


@pytest.mark.parametrize("seed", range(10))
def test_mean_pass_at_k_equals_the_enumeration(seed):
    draw = random.Random(seed)
    rows = [(f"p{i}", draw.random() < 0.3) for i in range(draw.randint(1, 6)) for _ in range(draw.randint(3, 7))]
    draw.shuffle(rows)
    for k in (1, 2, 3):
        chances = []
        for problem in {name for name, _ in rows}:
            draws = [any(results) for results in combinations([passed for name, passed in rows if name == problem], k)]
            chances.append(Fraction(sum(draws), len(draws)))
        expected = 100 * sum(chances) / len(chances)
        assert mean_pass_at_k([passed for _, passed in rows], [name for name, _ in rows], k) == pytest.approx(
            float(expected)
        )


def test_mean_pass_at_k_refuses_bad_input():
    with pytest.raises(ValueError, match="no samples"):
        mean_pass_at_k([], [], 1)
    with pytest.raises(ValueError, match="zip"):
        mean_pass_at_k([True, False], ["a"], 1)
    with pytest.raises(ValueError, match="pass@"):
        mean_pass_at_k([True], ["a"], -1)


# MBPP's completions ---------------------------------------------------------------------------------------------------

DOUBLE = (
    '\n\ndef double(n):\n\t"""\n\tDouble it.\n\t"""\n',
    "def check(candidate):\n    assert candidate(4) == 8\n",
    "double",
)
RIGHT, WRONG = "\treturn 2 * n\n", "\treturn n\n"


def code_answers(predictions, groups=None, cleanup="return"):
    return Answers(predictions, [DOUBLE] * len(predictions), groups=groups, cleanup=cleanup)


def test_both_scores_count_versions_as_the_paper_does():
    """Junk after the return fails stage 1 and passes stage 2: half a pass in the paper's score, none in pass@1."""
    junk = "\treturn 2 * n   oh well\n"
    cut = "\treturn 2 * n\nprint('bye')"  # stage 1 takes what begins with a stop word
    scores = score(("pass@1_two_versions", "pass@1", "pass@10"), code_answers([RIGHT, WRONG, junk, cut]))
    assert scores == {"pass@1_two_versions": 100 * 5 / 8, "pass@1": 50.0}


def test_llamas_second_version_drops_stray_lines():
    stray = ":::\n  return 2 * n"
    assert METRICS["pass@1_two_versions"](code_answers([stray], cleanup="lines")) == 50
    assert METRICS["pass@1_two_versions"](code_answers([stray], cleanup="return")) == 0


def test_ten_samples_give_pass_at_10():
    answers = code_answers([RIGHT] + [WRONG] * 9 + [WRONG] * 10, groups=["a"] * 10 + ["b"] * 10)
    assert METRICS["pass@10"](answers) == 50
    assert METRICS["pass@1"](answers) == pytest.approx(5)
