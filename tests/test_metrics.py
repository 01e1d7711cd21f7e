"""Metrics against values worked out by hand, formulas written out here and other implementations."""

import math
import random
import string
from fractions import Fraction
from itertools import combinations, groupby

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from adept.metrics import METRICS, Answers, mean_pass_at_k, numbers, pass_at_k, score

pytestmark = pytest.mark.filterwarnings("error")  # no warning of numpy, scipy or scikit-learn escapes

BINARY = ("0", "1")
THREE = ("entailment", "contradiction", "neutral")
NO_LABELS = ["", " ", "2", "ja", "1.0", "01", "Ελλάδα", "🙂", "-1"]


def measure(name, predictions, gold, labels=BINARY, groups=None):
    """A metric of rows with one reference each."""
    return METRICS[name](Answers(predictions, [(g,) for g in gold], labels, groups))


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


# scikit-learn and scipy, by other functions than the ones measured ------------------------------------------------------


def sk_accuracy(predicted, gold):
    return sk.accuracy_score(gold, predicted)


def sk_f1(predicted, gold):
    return sk.precision_recall_fscore_support(gold, turned(predicted, gold), pos_label="1", average="binary", zero_division=0)[2]


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
    [("accuracy", sk_accuracy, BINARY), ("f1", sk_f1, BINARY), ("f1_macro", sk_f1_macro, THREE), ("matthews", scipy_matthews, BINARY)],
)
def test_class_metrics_equal_scikit_learn_and_scipy(name, other, labels, kind):
    draw = random.Random(f"{name} {kind}")
    for _ in range(20):
        gold = [draw.choice(labels) for _ in range(draw.randint(2, 40))]
        gold = draw.choice([gold, gold, gold[:1] * len(gold)])  # now and then one class only
        predicted = [draw.choice(candidates(g, labels)[kind]) for g in gold]
        assert measure(name, predicted, gold, labels) == pytest.approx(100 * other(predicted, gold), abs=1e-9)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("seed", range(10))
def test_correlations_equal_numpy(seed, scale):
    draw = np.random.default_rng(seed)
    x = np.round(draw.normal(size=25), 1)  # one decimal: ties
    y = np.round(x + draw.normal(size=25), 1) * scale
    predicted, gold = [str(value) for value in x], [str(value) for value in y]
    assert measure("pearson", predicted, gold, None) == pytest.approx(100 * np.corrcoef(x, y)[0, 1])
    assert measure("spearman", predicted, gold, None) == pytest.approx(100 * np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])


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
    assert METRICS["accuracy"](Answers(["b", "c", "a"], [("a", "b"), ("a", "b"), ("a",)])) == pytest.approx(200 / 3)


def test_what_is_no_finite_number_is_read_as_minus_one():
    strings = ["3.8", " 4 ", "1e1", "-2", "", "drei", "nan", "NaN", "inf", "-inf", "Infinity", "1,5", "1e999", "🙂"]
    assert numbers(strings).tolist() == [3.8, 4.0, 10.0, -2.0] + [-1.0] * 10


def test_score_keeps_the_order_of_the_names():
    found = score(("f1", "accuracy"), Answers(["1", "0"], [("1",), ("1",)], BINARY))
    assert list(found.items()) == [("f1", pytest.approx(200 / 3)), ("accuracy", 50.0)]


def test_one_row_has_no_correlation():
    assert measure("pearson", ["1"], ["2"], None) == measure("spearman", ["1"], ["2"], None) == 0


def test_score_leaves_out_what_is_not_defined(monkeypatch):
    monkeypatch.setitem(METRICS, "undefined", lambda _: None)
    monkeypatch.setitem(METRICS, "zero", lambda _: 0.0)
    assert score(("undefined", "zero", "accuracy"), Answers(["1"], [("1",)])) == {"zero": 0.0, "accuracy": 100.0}


# SQuAD ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predicted", "references", "exact_match", "squad_f1"),
    [
        ("The Cat.", ("cat",), 100, 100),
        ("cat", ("dog",), 0, 0),
        ("black cat", ("cat",), 0, 200 / 3),  # P 1/2, R 1
        ("cat cat dog", ("cat cat bird",), 0, 200 / 3),  # 2 common of 3 and 3: a bag, not a set
        ("cat cat dog", ("cat dog dog",), 0, 200 / 3),  # nor every word that occurs in the other
        ("dog cat", ("cat dog",), 0, 100),  # a bag, not a sequence
        ("cat", ("dog", "the cat!", "bird"), 100, 100),  # the best reference
        ("black cat", ("white cat house", "cat", "dog"), 0, 200 / 3),  # not the mean, not the first
        ("", ("",), 100, 0),  # both empty: equal, but no common word
        ("the", ("...",), 100, 0),
        ("", ("cat",), 0, 0),
        ("a  an\tthe\n", ("",), 100, 0),
        ("theatre ant", ("atre nt",), 0, 0),  # articles are whole words
        ("a.", ("",), 100, 0),  # punctuation falls first and bares the article
        ("t.h.e", ("",), 100, 0),
        ("U.S.", ("us",), 100, 100),
        ("1,000", ("1000",), 100, 100),
        ("well-known", ("wellknown",), 100, 100),  # punctuation is dropped, not replaced by a blank
        ("x\u2013y", ("xy",), 0, 0),  # an en dash is no ASCII punctuation
        ("a\u2013b", ("\u2013b",), 100, 100),  # but it bounds a word: this "a" is an article
        ("a\u0301", ("\u0301",), 100, 100),  # so does a combining accent
        ("a\u00e9", ("\u00e9",), 0, 0),  # a letter beyond ASCII does not
        ("x\u2013the\u2013y", ("x\u2013 \u2013y",), 100, 100),  # an article leaves a blank
        ("\u00e1", ("\u0301",), 0, 0),
        ("STRASSE", ("stra\u00dfe",), 0, 0),  # lower case, no case folding
        ("cat\u00a0dog\u3000bird", ("cat dog bird",), 100, 100),  # every Unicode blank
    ],
)
def test_squad_by_hand(predicted, references, exact_match, squad_f1):
    answers = Answers([predicted], [references])
    assert METRICS["exact_match"](answers) == exact_match
    assert METRICS["squad_f1"](answers) == pytest.approx(squad_f1)


PIECES = [
    *("the", "a", "an", "The", "AN", "A", "cat", "Cat", "cats", "dog", "dog", "theatre", "another", "1,000", "1000", "U.S.", "us"),
    *("", " ", "  ", "\t", "\n", "\u00a0", "\u3000", "\u200b", ".", "...", "'s", '"', "_", "the_", "(a)", "a-b", "\u2013", "a\u2013b"),
    *("\u00e9", "e\u0301", "a\u0301", "\u0130", "\u00df", "SS", "\uff13", "\u00b2", "3", "🙂", "a🙂", "مرحبا", "\u202eabc", "«", "¿"),
]


def squad_pairs(count, seed=0):
    """(prediction, references) of strings that share much."""
    draw = random.Random(seed)

    def phrase(pieces):
        return draw.choice([" ", " ", " ", "", "-", "\t"]).join(pieces)

    for _ in range(count):
        pieces = draw.choices(PIECES, k=draw.randint(0, 8))
        kept = [piece for piece in pieces if draw.random() < 0.8]
        near = draw.choice([pieces, kept, pieces + kept, draw.sample(pieces, len(pieces)), ["the", *pieces, "."]])
        references = [phrase(pieces), *(phrase(draw.choices(PIECES, k=draw.randint(0, 4))) for _ in range(draw.randint(0, 2)))]
        yield phrase(near), tuple(draw.sample(references, len(references)))


PAIRS = list(squad_pairs(500))


def other_words(text):
    """SQuAD's words, from runs of characters instead of a pattern."""
    kept = [char for char in text.lower() if char not in string.punctuation]
    runs = ["".join(run) for _, run in groupby(kept, str.isalnum)]
    return "".join(" " if run in ("a", "an", "the") else run for run in runs).split()


def other_squad(prediction, reference):
    """(exact match, F1), 0 to 1, the common words from two sorted lists."""
    x, y = other_words(prediction), other_words(reference)
    exact = float(x == y)
    x, y, i, j, common = sorted(x), sorted(y), 0, 0, 0
    while i < len(x) and j < len(y):
        common += x[i] == y[j]
        i, j = i + (x[i] <= y[j]), j + (y[j] <= x[i])
    if common == 0:
        return exact, 0.0
    precision, recall = common / len(x), common / len(y)
    return exact, 2 * precision * recall / (precision + recall)


def test_squad_equals_another_implementation():
    expected = []
    for prediction, references in PAIRS:
        exact, overlap = (max(values) for values in zip(*(other_squad(prediction, r) for r in references), strict=True))
        answers = Answers([prediction], [references])
        assert METRICS["exact_match"](answers) == 100 * exact, (prediction, references)
        assert METRICS["squad_f1"](answers) == pytest.approx(100 * overlap), (prediction, references)
        expected.append((exact, overlap))
    everything = Answers([p for p, _ in PAIRS], [r for _, r in PAIRS])
    assert METRICS["exact_match"](everything) == pytest.approx(100 * np.mean([exact for exact, _ in expected]))
    assert METRICS["squad_f1"](everything) == pytest.approx(100 * np.mean([overlap for _, overlap in expected]))
    kinds = [(exact, 0 if overlap == 0 else 1 if overlap == 1 else 0.5) for exact, overlap in expected]
    assert all(kinds.count(kind) >= 10 for kind in [(0, 0), (0, 0.5), (0, 1), (1, 1), (1, 0)]), "the pairs have become one-sided"


def test_squad_equals_torchmetrics():
    """Its F1 is SQuAD v2.0's where strings are empty: 1 when both are; everything else agrees."""
    squad = pytest.importorskip("torchmetrics.functional.text").squad
    deviating = 0
    for prediction, references in PAIRS:
        target = {"id": "0", "answers": {"text": list(references), "answer_start": [0] * len(references)}}
        found = squad({"id": "0", "prediction_text": prediction}, target)
        answers = Answers([prediction], [references])
        assert METRICS["exact_match"](answers) == float(found["exact_match"]), (prediction, references)
        if not other_words(prediction) and not all(map(other_words, references)):
            assert METRICS["squad_f1"](answers) == 0 and float(found["f1"]) == 100, (prediction, references)
            deviating += 1
        else:
            assert METRICS["squad_f1"](answers) == pytest.approx(float(found["f1"]), rel=1e-5), (prediction, references)
    assert 10 <= deviating <= 100


# Questions of several rows ----------------------------------------------------------------------------------------------


def test_question_em_by_hand():
    """Of three questions one is right in all its options; q1's rows are apart, and an invalid answer is wrong."""
    predicted, gold = ["1", "0", "1", "ja", "1", "0"], ["1", "0", "0", "0", "1", "0"]
    groups = ["q1", "q2", "q1", "q3", "q2", "q3"]
    assert measure("question_em", predicted, gold, BINARY, groups) == pytest.approx(100 / 3)
    assert measure("question_em", predicted, gold) == measure("accuracy", predicted, gold) == pytest.approx(400 / 6)


@pytest.mark.parametrize("seed", range(20))
def test_multirc_equals_superglues_definition(seed):
    """F1a: precision and recall of the options called right, over the whole set. EM: questions whose options are called just so."""
    draw = random.Random(seed)
    questions = [f"p{p} q{q}" for p in range(4) for q in range(draw.randint(1, 4))]
    rows = [(question, option) for question in questions for option in range(draw.randint(1, 4))]
    draw.shuffle(rows)
    gold = [draw.choice(BINARY) for _ in rows]
    predicted = [draw.choice([g, g, g, g, draw.choice(BINARY), draw.choice(NO_LABELS)]) for g in gold]
    called, right = ({row for row, label in zip(rows, labels, strict=True) if label == "1"} for labels in (turned(predicted, gold), gold))
    hits = len(called & right)
    precision, recall = hits / max(len(called), 1), hits / max(len(right), 1)
    f1a = 2 * precision * recall / (precision + recall) if hits else 0.0
    exact = [{row for row in called if row[0] == q} == {row for row in right if row[0] == q} for q in questions]
    groups = [question for question, _ in rows]
    assert measure("f1", predicted, gold, BINARY, groups) == pytest.approx(100 * f1a)
    assert measure("question_em", predicted, gold, BINARY, groups) == pytest.approx(100 * sum(exact) / len(exact))


def test_record_per_query_differs_from_per_row():
    """A query with three answers makes three rows; the model says the same in each. The second query is answered wrongly."""
    predicted = ["the Beatles", "Beatles", "beatles!", "Obama"]
    each = [("Beatles",), ("Fab Four",), ("Beatles band",), ("Bush",)]
    every = [("Beatles", "Fab Four", "Beatles band")] * 3 + [("Bush",)]
    groups = ["q1", "q1", "q1", "q2"]
    assert METRICS["exact_match"](Answers(predicted, each)) == 25  # 1 of 4 rows
    assert METRICS["exact_match"](Answers(predicted, every)) == 75  # 3 of 4 rows
    assert METRICS["exact_match"](Answers(predicted, every, groups=groups)) == 50  # 1 of 2 queries
    assert METRICS["exact_match"](Answers(predicted, each, groups=groups)) == pytest.approx(100 / 6)  # (1/3 + 0) / 2
    assert METRICS["squad_f1"](Answers(predicted, each)) == pytest.approx(100 * (1 + 0 + 2 / 3 + 0) / 4)
    assert METRICS["squad_f1"](Answers(predicted, every)) == 75
    assert METRICS["squad_f1"](Answers(predicted, every, groups=groups)) == 50


@pytest.mark.parametrize("seed", range(20))
def test_record_equals_the_best_answer_of_each_query(seed):
    draw = random.Random(seed)
    queries = [(f"q{i}", prediction, references) for i, (prediction, references) in enumerate(squad_pairs(draw.randint(1, 30), seed))]
    rows = [query for query in queries for _ in query[2]]  # a row an answer, all with every answer
    draw.shuffle(rows)
    groups, predicted, references = (list(column) for column in zip(*rows, strict=True))
    exact, overlap = zip(*(map(max, zip(*(other_squad(p, r) for r in refs), strict=True)) for _, p, refs in queries), strict=True)
    answers = Answers(predicted, references, groups=groups)
    assert METRICS["exact_match"](answers) == pytest.approx(100 * sum(exact) / len(queries))
    assert METRICS["squad_f1"](answers) == pytest.approx(100 * sum(overlap) / len(queries))


# pass@k -----------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("samples", "passed", "k"), [(3, 1, 4), (3, 4, 1), (-1, 0, 0), (3, -1, 1), (3, 1, -1), (0, 0, 1), (-1, -1, -1)])
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
        assert mean_pass_at_k([passed for _, passed in rows], [name for name, _ in rows], k) == pytest.approx(float(expected))


def test_mean_pass_at_k_refuses_bad_input():
    with pytest.raises(ValueError, match="no samples"):
        mean_pass_at_k([], [], 1)
    with pytest.raises(ValueError, match="zip"):
        mean_pass_at_k([True, False], ["a"], 1)
    with pytest.raises(ValueError, match="pass@"):
        mean_pass_at_k([True], ["a"], -1)


# Adversarial input ------------------------------------------------------------------------------------------------------

MEASURED = ("accuracy", "f1", "f1_macro", "matthews", "pearson", "spearman", "exact_match", "squad_f1")
COMPOSED, DECOMPOSED = "\u00e9", "e\u0301"
LONG = "1" * 100_000


@pytest.mark.parametrize(
    ("predicted", "gold", "labels", "percents"),
    [  # worked out by hand, in the order of MEASURED
        (["1"], ["1"], BINARY, (100, 100, 50, 0, 0, 0, 100, 100)),
        (["0"], ["0"], BINARY, (100, 0, 50, 0, 0, 0, 100, 100)),
        ([""], ["1"], BINARY, (0, 0, 0, 0, 0, 0, 0, 0)),
        (["", ""], ["0", "1"], BINARY, (0, 0, 0, -100, 0, 0, 0, 0)),
        ([" ", "\t\n"], ["0", "1"], BINARY, (0, 0, 0, -100, 0, 0, 0, 0)),
        (["🙂", "مرحبا", "0 1"], ["0", "1", "1"], BINARY, (0, 0, 0, -100, 0, 0, 0, 200 / 9)),
        (["1", "1"], ["1", "1"], BINARY, (100, 100, 50, 0, 0, 0, 100, 100)),
        (["0", "0"], ["1", "1"], BINARY, (0, 0, 0, 0, 0, 0, 0, 0)),
        (["1", "0"], ["0", "0"], BINARY, (50, 0, 100 / 3, 0, 0, 0, 50, 50)),
        ([COMPOSED, DECOMPOSED], [COMPOSED, COMPOSED], (DECOMPOSED, COMPOSED), (50, 200 / 3, 100 / 3, 0, 0, 0, 50, 50)),
        (["\uff11", "0"], ["1", "0"], BINARY, (50, 0, 50, 0, 100, 100, 50, 50)),  # a fullwidth digit is a number but no label
        (["true", "False"], ["True", "False"], ("False", "True"), (50, 0, 50, 0, 0, 0, 100, 100)),
        (["nan", "inf", "1e999"], ["0", "1", "1"], BINARY, (0, 0, 0, -100, 0, 0, 0, 0)),
        (["nan", "1e999"], ["nan", "1e999"], ("nan", "1e999"), (100, 100, 100, 100, 0, 0, 100, 100)),  # labels, but no numbers
        (["-inf", "1"], ["0", "1"], BINARY, (50, 200 / 3, 50, 0, 100, 100, 50, 50)),
        ([LONG, "0"], ["1", "0"], BINARY, (50, 0, 50, 0, -100, -100, 50, 50)),
        (["1 " * 50_000, "0"], ["1", "0"], BINARY, (50, 0, 50, 0, -100, -100, 50, 100 / 50_001 + 50)),
        (["x", ""], ["x", "x"], ("x", "x"), (50, 200 / 3, 100 / 3, 0, 0, 0, 50, 50)),  # a label twice: the last id
        (["a", "a"], ["a", "the"], ("a", "the"), (50, 0, 100 / 3, 0, 0, 0, 100, 0)),  # labels that normalise to nothing
        (["שלום", "مرحبا"], ["שלום", "مرحبا"], ("שלום", "مرحبا"), (100, 100, 100, 100, 0, 0, 100, 100)),
    ],
)  # fmt: skip
def test_adversarial_input(predicted, gold, labels, percents):
    found = score(MEASURED, Answers(predicted, [(g,) for g in gold], labels))
    assert found == pytest.approx(dict(zip(MEASURED, percents, strict=True)), abs=1e-9)
    assert all(type(value) is float for value in found.values())


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize("predicted", [["1e308", "-1e308", "1e308"], ["1e-320", "0", "1e-320"], ["1", "1.0000000000000002", "1"]])
def test_correlations_of_extreme_numbers_stay_finite_and_in_range(name, predicted):
    assert -100.0001 <= measure(name, predicted, ["1", "2", "4"], None) <= 100.0001


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        (((), ()), "no predictions"),
        ((["a"], []), "1 predictions, but 0"),
        ((["a"], [("a",), ("b",)]), "1 predictions, but 2 rows"),
        ((["a"], [("a",)], None, []), "but 0 group keys"),
        ((["a", "b"], [("a",), ("b",)], None, ["q"]), "but 1 group keys"),
        ((["a", "b"], [("a",), ()]), "row 1 has no reference"),
    ],
)
def test_answers_refuse_what_cannot_be_scored(answers, complaint):
    with pytest.raises(ValueError, match=complaint):
        Answers(*answers)


@pytest.mark.parametrize("name", ["f1", "f1_macro", "matthews"])
@pytest.mark.parametrize("labels", [None, BINARY])
def test_gold_without_a_class_is_refused(name, labels):
    with pytest.raises(ValueError, match="'2' is none of the labels"):
        measure(name, ["1"], ["2"], labels)
