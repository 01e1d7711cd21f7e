"""Metrics of classes against values worked out by hand, formulas written out here and scikit-learn."""

import math
import random

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from adept.metrics import METRICS, Answers

pytestmark = pytest.mark.filterwarnings("error")  # no warning of numpy, scipy or scikit-learn escapes

BINARY = ("0", "1")
THREE = ("entailment", "contradiction", "neutral")
NO_LABELS = ["", " ", "2", "ja", "1.0", "01", "Ελλάδα", "🙂", "-1"]


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


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("name", "formula", "labels"),
    [("accuracy", accuracy, BINARY), ("f1", f1, BINARY), ("matthews", matthews, BINARY), ("f1_macro", f1_macro, THREE)],
)
def test_class_metrics_equal_their_formulas_on_random_strings(measure, name, formula, labels, seed):
    draw = random.Random(seed)
    gold = [draw.choice(labels) for _ in range(draw.randint(2, 40))]
    predicted = [draw.choice([g, draw.choice(labels), draw.choice(NO_LABELS)]) for g in gold]
    assert measure(name, predicted, gold, labels) == pytest.approx(formula(predicted, gold))


# scikit-learn and scipy, by other functions than the ones measured ----------------------------------------------------


def sk_accuracy(predicted, gold):
    return sk.accuracy_score(gold, predicted)


def sk_f1(predicted, gold):
    return sk.precision_recall_fscore_support(
        gold, turned(predicted, gold), pos_label="1", average="binary", zero_division=0
    )[2]


def sk_f1_macro(predicted, gold):
    """F1 of a class from its Jaccard index J: 2 J / (1 + J)."""
    jaccard = sk.jaccard_score(gold, predicted, labels=THREE, average=None, zero_division=0)
    return np.mean(2 * jaccard / (1 + jaccard))


def scipy_matthews(predicted, gold):
    """Of two classes it is Pearson's correlation of the ids."""
    x, y = (np.array(side, dtype=float) for side in (turned(predicted, gold), gold))
    return stats.pearsonr(x, y).statistic if np.ptp(x) and np.ptp(y) else 0.0


def candidates(right, labels):
    """What a prediction is drawn from, by kind of input."""
    return {
        "mixed": [right] * 6 + [*labels, *NO_LABELS],
        "nearly right": [right] * 20 + [*labels],
        "all invalid": NO_LABELS,
        "first class only": labels[:1],
        "last class only": labels[-1:],
    }


@pytest.mark.parametrize("kind", candidates("", BINARY))
@pytest.mark.parametrize(
    ("name", "other", "labels"),
    [
        ("accuracy", sk_accuracy, BINARY),
        ("f1", sk_f1, BINARY),
        ("f1_macro", sk_f1_macro, THREE),
        ("matthews", scipy_matthews, BINARY),
    ],
)
def test_class_metrics_equal_scikit_learn_and_scipy(measure, name, other, labels, kind):
    draw = random.Random(f"{name} {kind}")
    for _ in range(20):
        gold = [draw.choice(labels) for _ in range(draw.randint(2, 40))]
        gold = draw.choice([gold, gold, gold[:1] * len(gold)])  # now and then one class only
        predicted = [draw.choice(candidates(g, labels)[kind]) for g in gold]
        assert measure(name, predicted, gold, labels) == pytest.approx(100 * other(predicted, gold), abs=1e-9)


# By hand --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "predicted", "gold", "labels", "percent"),
    [
        ("accuracy", ["1", "0", "1", "1"], ["1", "0", "0", "1"], BINARY, 75),
        ("accuracy", ["1", "", "ja", "1 "], ["1", "0", "0", "1"], BINARY, 25),
        ("accuracy", ["straße", "n\u0303"], ["straße", "\u00f1"], None, 50),  # n and a combining tilde are not ñ
        ("f1", ["1", "1", "0", "0"], ["1", "0", "1", "0"], BINARY, 50),  # TP 1, FP 1, FN 1
        ("f1", ["1", "ja"], ["1", "1"], BINARY, 200 / 3),  # the invalid one is a false negative: P 1, R 1/2
        ("f1", ["1", "ja"], ["1", "0"], BINARY, 200 / 3),  # the invalid one is a false positive: P 1/2, R 1
        ("f1", ["0", "0"], ["0", "0"], BINARY, 0),  # no positive anywhere
        ("f1", ["1", "1"], ["1", "1"], BINARY, 100),
        ("f1_macro", ["entailment", "contradiction", "neutral"], THREE, THREE, 100),
        ("f1_macro", ["entailment", "ja", "neutral", "neutral"],
         ["entailment", "entailment", "neutral", "contradiction"], THREE, 400 / 9),
        ("f1_macro", ["neutral", "neutral"], ["neutral", "neutral"], THREE, 100 / 3),  # absent classes count as 0
        ("matthews", ["1", "1", "0", "0"], ["1", "1", "0", "0"], BINARY, 100),
        ("matthews", ["0", "0", "1", "1"], ["1", "1", "0", "0"], BINARY, -100),
        ("matthews", ["ja", "", "ja", ""], ["1", "1", "0", "0"], BINARY, -100),  # the opposite of every gold class
        ("matthews", ["1", "1", "1", "0"], ["1", "1", "0", "0"], BINARY, 100 / math.sqrt(3)),
        ("matthews", ["1", "1", "1", "1"], ["1", "1", "0", "0"], BINARY, 0),
        ("matthews", ["1", "1"], ["1", "1"], BINARY, 0),  # one class only: nothing to correlate
    ],
)  # fmt: skip
def test_class_metrics_by_hand(measure, name, predicted, gold, labels, percent):
    assert measure(name, predicted, gold, labels) == pytest.approx(percent, abs=1e-9)


@pytest.mark.parametrize("name", ["accuracy", "f1", "matthews"])
@pytest.mark.parametrize("invalid", NO_LABELS)
def test_an_invalid_prediction_counts_as_the_wrong_class(measure, name, invalid):
    gold = ["0", "1"] * 3
    assert (
        measure(name, [invalid, *gold[1:]], gold) == measure(name, ["1", *gold[1:]], gold) < measure(name, gold, gold)
    )


def test_f1_macro_charges_an_invalid_prediction_to_its_gold_class_only(measure):
    """Precision of every class and recall of the others stay 1: F1 2/3, 1, 1."""
    assert measure("f1_macro", ["ja", *THREE], ["entailment", *THREE], THREE) == pytest.approx(
        100 * (2 / 3 + 1 + 1) / 3
    )


def test_a_row_with_several_references_is_right_by_any_of_them():
    assert METRICS["accuracy"](Answers(["b", "c", "a"], [("a", "b"), ("a", "b"), ("a",)])) == pytest.approx(200 / 3)


# Questions of several rows --------------------------------------------------------------------------------------------


def test_question_em_by_hand(measure):
    """Of three questions one is right in all its options; q1's rows are apart, and an invalid answer is wrong."""
    predicted, gold = ["1", "0", "1", "ja", "1", "0"], ["1", "0", "0", "0", "1", "0"]
    groups = ["q1", "q2", "q1", "q3", "q2", "q3"]
    assert measure("question_em", predicted, gold, BINARY, groups) == pytest.approx(100 / 3)
    assert measure("question_em", predicted, gold) == measure("accuracy", predicted, gold) == pytest.approx(400 / 6)


@pytest.mark.parametrize("seed", range(20))
def test_multirc_equals_superglues_definition(measure, seed):
    """F1a: precision and recall of the options called right, over the whole set. EM: questions all right."""
    draw = random.Random(seed)
    questions = [f"p{p} q{q}" for p in range(4) for q in range(draw.randint(1, 4))]
    rows = [(question, option) for question in questions for option in range(draw.randint(1, 4))]
    draw.shuffle(rows)
    gold = [draw.choice(BINARY) for _ in rows]
    predicted = [draw.choice([g, g, g, g, draw.choice(BINARY), draw.choice(NO_LABELS)]) for g in gold]
    called, right = (
        {row for row, label in zip(rows, labels, strict=True) if label == "1"}
        for labels in (turned(predicted, gold), gold)
    )
    hits = len(called & right)
    precision, recall = hits / max(len(called), 1), hits / max(len(right), 1)
    f1a = 2 * precision * recall / (precision + recall) if hits else 0.0
    exact = [{row for row in called if row[0] == q} == {row for row in right if row[0] == q} for q in questions]
    groups = [question for question, _ in rows]
    assert measure("f1", predicted, gold, BINARY, groups) == pytest.approx(100 * f1a)
    assert measure("question_em", predicted, gold, BINARY, groups) == pytest.approx(100 * sum(exact) / len(exact))


@pytest.mark.parametrize("name", ["f1", "f1_macro", "matthews"])
@pytest.mark.parametrize("labels", [None, BINARY])
def test_gold_without_a_class_is_refused(measure, name, labels):
    with pytest.raises(ValueError, match="'2' is none of the labels"):
        measure(name, ["1"], ["2"], labels)


def test_an_invalid_string_is_a_class_of_its_own_to_the_released_matthews(measure):
    assert measure("matthews", ["0", "x"], ["0", "1"]) == 0  # the class that is wrong
    assert measure("matthews", ["0", "x"], ["0", "1"], invalid="released") == pytest.approx(50)
    predicted, gold = ["0", "1", "1", "", "x", "0"], ["0", "1", "0", "1", "1", "0"]
    expected = 100 * sk.matthews_corrcoef(gold, predicted)
    assert measure("matthews", predicted, gold, invalid="released") == pytest.approx(expected)
    assert expected != pytest.approx(measure("matthews", predicted, gold))
    valid = ["0", "1", "1", "1", "0", "0"]
    assert measure("matthews", valid, gold, invalid="released") == pytest.approx(measure("matthews", valid, gold))
