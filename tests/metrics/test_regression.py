"""Correlations against values worked out by hand, formulas written out here and numpy."""

import math
import random

import numpy as np
import pytest
from scipy import stats

from adept.metrics.regression import parse_numbers

pytestmark = pytest.mark.filterwarnings("error")  # no warning of numpy, scipy or scikit-learn escapes


def pearson(x, y):
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    over = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return 100 * over / math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))


def ranks(x):
    """Ties share the mean of their places."""
    return [sum(b < a for b in x) + (x.count(a) + 1) / 2 for a in x]


@pytest.mark.parametrize("seed", range(20))
def test_correlations_equal_their_formulas_on_random_strings(measure, seed):
    draw = random.Random(seed)
    x, y = ([round(draw.uniform(0, 5), 1) for _ in range(30)] for _ in range(2))
    predicted = [draw.choice([str(value), "zwei"]) for value in x]
    read = [-1.0 if p == "zwei" else value for p, value in zip(predicted, x, strict=True)]
    gold = [str(value) for value in y]
    assert measure("pearson", predicted, gold, None) == pytest.approx(pearson(read, y))
    assert measure("spearman", predicted, gold, None) == pytest.approx(pearson(ranks(read), ranks(y)))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("seed", range(10))
def test_correlations_equal_numpy(measure, seed, scale):
    draw = np.random.default_rng(seed)
    x = np.round(draw.normal(size=25), 1)  # one decimal: ties
    y = np.round(x + draw.normal(size=25), 1) * scale
    predicted, gold = [str(value) for value in x], [str(value) for value in y]
    assert measure("pearson", predicted, gold, None) == pytest.approx(100 * np.corrcoef(x, y)[0, 1])
    assert measure("spearman", predicted, gold, None) == pytest.approx(
        100 * np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1]
    )


@pytest.mark.parametrize(
    ("name", "predicted", "gold", "labels", "percent"),
    [
        ("pearson", ["1", "2", "3"], ["2", "4", "6"], None, 100),
        ("pearson", ["1", "2", "3"], ["3", "2", "1"], None, -100),
        ("pearson", ["1", "zwei", "3"], ["1", "-1", "3"], None, 100),  # the unparsable one is read as -1
        ("pearson", ["3", "3", "3"], ["1", "2", "3"], None, 0),
        ("spearman", ["1", "2", "9"], ["1", "4", "5"], None, 100),  # the order agrees, the distances do not
        ("spearman", ["3", "3", "3"], ["1", "2", "3"], None, 0),
        ("spearman", ["1", "2", "3"], ["2", "2", "2"], None, 0),
    ],
)  # fmt: skip
def test_correlations_by_hand(measure, name, predicted, gold, labels, percent):
    assert measure(name, predicted, gold, labels) == pytest.approx(percent, abs=1e-9)


def test_what_is_no_finite_number_is_read_as_minus_one():
    strings = ["3.8", " 4 ", "1e1", "-2", "", "drei", "nan", "NaN", "inf", "-inf", "Infinity", "1,5", "1e999", "🙂"]
    assert parse_numbers(strings).tolist() == [3.8, 4.0, 10.0, -2.0] + [-1.0] * 10


def test_one_row_has_no_correlation(measure):
    assert measure("pearson", ["1"], ["2"], None) == measure("spearman", ["1"], ["2"], None) == 0


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize(
    "predicted", [["1e308", "-1e308", "1e308"], ["1e-320", "0", "1e-320"], ["1", "1.0000000000000002", "1"]]
)
def test_correlations_of_extreme_numbers_stay_finite_and_in_range(measure, name, predicted):
    assert -100.0001 <= measure(name, predicted, ["1", "2", "4"], None) <= 100.0001


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400"])
def test_one_answer_that_is_no_finite_number_makes_the_released_correlation_zero(measure, name, text):
    predicted, gold = ["1", "2", text, "4"], ["1", "2", "-1", "4"]
    assert measure(name, predicted, gold, None) == pytest.approx(100)  # read as -1
    assert measure(name, predicted, gold, None, invalid="released") == 0
    assert measure(name, ["1", "2", "zwei", "4"], gold, None, invalid="released") == pytest.approx(100)
