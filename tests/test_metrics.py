"""Metrics against values worked out by hand and against formulas written out here."""

import math
import random

import pytest

from adept.metrics import METRICS, numbers, score

BINARY = ("0", "1")
THREE = ("entailment", "contradiction", "neutral")
NO_LABELS = ["", " ", "2", "ja", "1.0", "01", "Ελλάδα", "🙂", "-1"]


def measure(name, predictions, gold, labels=BINARY):
    return METRICS[name](predictions, [(g,) for g in gold], labels)


# Formulas ---------------------------------------------------------------------------------------------------------------


def f1_of(positive, predicted, gold):
    """2 TP / (predicted + gold positives)."""
    hits = sum(p == g == positive for p, g in zip(predicted, gold, strict=True))
    found = predicted.count(positive) + gold.count(positive)
    return 200 * hits / found if found else 0.0


def turned(predicted, gold):
    """Every invalid prediction as the opposite of its gold class."""
    return [p if p in BINARY else {"0": "1", "1": "0"}[g] for p, g in zip(predicted, gold, strict=True)]


def accuracy(predicted, gold):
    return 100 * sum(map(str.__eq__, predicted, gold)) / len(gold)


def f1(predicted, gold):
    return f1_of("1", turned(predicted, gold), gold)


def f1_macro(predicted, gold):
    return sum(f1_of(label, predicted, gold) for label in THREE) / 3


def matthews(predicted, gold):
    pairs = list(zip(turned(predicted, gold), gold, strict=True))
    tp, tn, fp, fn = (pairs.count(pair) for pair in (("1", "1"), ("0", "0"), ("1", "0"), ("0", "1")))
    below = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return 100 * (tp * tn - fp * fn) / below if below else 0.0


def pearson(x, y):
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    over = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return 100 * over / math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))


def ranks(x):
    """Ties share the mean of their places."""
    return [sum(b < a for b in x) + (x.count(a) + 1) / 2 for a in x]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("name", "formula", "labels"),
    [("accuracy", accuracy, BINARY), ("f1", f1, BINARY), ("matthews", matthews, BINARY), ("f1_macro", f1_macro, THREE)],
)
def test_class_metrics_equal_their_formulas_on_random_strings(name, formula, labels, seed):
    draw = random.Random(seed)
    gold = [draw.choice(labels) for _ in range(draw.randint(2, 40))]
    predicted = [draw.choice([g, draw.choice(labels), draw.choice(NO_LABELS)]) for g in gold]
    assert measure(name, predicted, gold, labels) == pytest.approx(formula(predicted, gold))


@pytest.mark.parametrize("seed", range(20))
def test_correlations_equal_their_formulas_on_random_strings(seed):
    draw = random.Random(seed)
    x, y = ([round(draw.uniform(0, 5), 1) for _ in range(30)] for _ in range(2))
    predicted = [draw.choice([str(value), "zwei"]) for value in x]
    read = [-1.0 if p == "zwei" else value for p, value in zip(predicted, x, strict=True)]
    gold = [str(value) for value in y]
    assert measure("pearson", predicted, gold, None) == pytest.approx(pearson(read, y))
    assert measure("spearman", predicted, gold, None) == pytest.approx(pearson(ranks(read), ranks(y)))


# By hand ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "predicted", "gold", "labels", "percent"),
    [
        ("accuracy", ["1", "0", "1", "1"], ["1", "0", "0", "1"], BINARY, 75),
        ("accuracy", ["1", "", "ja", "1 "], ["1", "0", "0", "1"], BINARY, 25),
        ("accuracy", ["straße", "n\u0303"], ["straße", "\u00f1"], None, 50),  # n and a combining tilde are another string than ñ
        ("f1", ["1", "1", "0", "0"], ["1", "0", "1", "0"], BINARY, 50),  # TP 1, FP 1, FN 1
        ("f1", ["1", "ja"], ["1", "1"], BINARY, 200 / 3),  # the invalid one is a false negative: P 1, R 1/2
        ("f1", ["1", "ja"], ["1", "0"], BINARY, 200 / 3),  # the invalid one is a false positive: P 1/2, R 1
        ("f1", ["0", "0"], ["0", "0"], BINARY, 0),  # no positive anywhere
        ("f1", ["1", "1"], ["1", "1"], BINARY, 100),
        ("f1_macro", ["entailment", "contradiction", "neutral"], THREE, THREE, 100),
        ("f1_macro", ["entailment", "ja", "neutral", "neutral"], ["entailment", "entailment", "neutral", "contradiction"], THREE, 400 / 9),
        ("f1_macro", ["neutral", "neutral"], ["neutral", "neutral"], THREE, 100 / 3),  # the two absent classes count as 0
        ("matthews", ["1", "1", "0", "0"], ["1", "1", "0", "0"], BINARY, 100),
        ("matthews", ["0", "0", "1", "1"], ["1", "1", "0", "0"], BINARY, -100),
        ("matthews", ["ja", "", "ja", ""], ["1", "1", "0", "0"], BINARY, -100),  # the opposite of every gold class
        ("matthews", ["1", "1", "1", "0"], ["1", "1", "0", "0"], BINARY, 100 / math.sqrt(3)),
        ("matthews", ["1", "1", "1", "1"], ["1", "1", "0", "0"], BINARY, 0),
        ("matthews", ["1", "1"], ["1", "1"], BINARY, 0),  # one class only: nothing to correlate
        ("pearson", ["1", "2", "3"], ["2", "4", "6"], None, 100),
        ("pearson", ["1", "2", "3"], ["3", "2", "1"], None, -100),
        ("pearson", ["1", "zwei", "3"], ["1", "-1", "3"], None, 100),  # the unparsable one is read as -1
        ("pearson", ["3", "3", "3"], ["1", "2", "3"], None, 0),
        ("spearman", ["1", "2", "9"], ["1", "4", "5"], None, 100),  # the order agrees, the distances do not
        ("spearman", ["3", "3", "3"], ["1", "2", "3"], None, 0),
        ("spearman", ["1", "2", "3"], ["2", "2", "2"], None, 0),
    ],
)  # fmt: skip
def test_by_hand(name, predicted, gold, labels, percent):
    assert measure(name, predicted, gold, labels) == pytest.approx(percent, abs=1e-9)


@pytest.mark.parametrize("name", ["accuracy", "f1", "matthews"])
@pytest.mark.parametrize("invalid", NO_LABELS)
def test_an_invalid_prediction_counts_as_the_wrong_class(name, invalid):
    gold = ["0", "1"] * 3
    assert measure(name, [invalid, *gold[1:]], gold) == measure(name, ["1", *gold[1:]], gold) < measure(name, gold, gold)


def test_f1_macro_charges_an_invalid_prediction_to_its_gold_class_only():
    """Precision of every class and recall of the others stay 1: F1 2/3, 1, 1."""
    assert measure("f1_macro", ["ja", *THREE], ["entailment", *THREE], THREE) == pytest.approx(100 * (2 / 3 + 1 + 1) / 3)


def test_a_row_with_several_references_is_right_by_any_of_them():
    assert METRICS["accuracy"](["b", "c", "a"], [("a", "b"), ("a", "b"), ("a",)], None) == pytest.approx(200 / 3)


def test_what_is_no_finite_number_is_read_as_minus_one():
    strings = ["3.8", " 4 ", "1e1", "-2", "", "drei", "nan", "NaN", "inf", "-inf", "Infinity", "1,5", "1e999", "🙂"]
    assert numbers(strings).tolist() == [3.8, 4.0, 10.0, -2.0] + [-1.0] * 10


def test_score_keeps_the_order_of_the_names():
    found = score(("f1", "accuracy"), ["1", "0"], [("1",), ("1",)], BINARY)
    assert list(found.items()) == [("f1", pytest.approx(200 / 3)), ("accuracy", 50.0)]


def test_one_row_has_no_correlation():
    assert METRICS["pearson"](["1"], [("2",)], None) == METRICS["spearman"](["1"], [("2",)], None) == 0
