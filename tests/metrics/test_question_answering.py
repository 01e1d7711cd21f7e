"""SQuAD's metrics against values worked out by hand and two other implementations."""

import random
import string
from itertools import groupby

import numpy as np
import pytest

from adept.metrics import METRICS, Answers

pytestmark = pytest.mark.filterwarnings("error")  # no warning of numpy, scipy or scikit-learn escapes


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
    *(
        "the",
        "a",
        "an",
        "The",
        "AN",
        "A",
        "cat",
        "Cat",
        "cats",
        "dog",
        "dog",
        "theatre",
        "another",
        "1,000",
        "1000",
        "U.S.",
        "us",
    ),
    *(
        "",
        " ",
        "  ",
        "\t",
        "\n",
        "\u00a0",
        "\u3000",
        "\u200b",
        ".",
        "...",
        "'s",
        '"',
        "_",
        "the_",
        "(a)",
        "a-b",
        "\u2013",
        "a\u2013b",
    ),
    *(
        "\u00e9",
        "e\u0301",
        "a\u0301",
        "\u0130",
        "\u00df",
        "SS",
        "\uff13",
        "\u00b2",
        "3",
        "🙂",
        "a🙂",
        "مرحبا",
        "\u202eabc",
        "«",
        "¿",
    ),
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
        references = [
            phrase(pieces),
            *(phrase(draw.choices(PIECES, k=draw.randint(0, 4))) for _ in range(draw.randint(0, 2))),
        ]
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
    assert all(kinds.count(kind) >= 10 for kind in [(0, 0), (0, 0.5), (0, 1), (1, 1), (1, 0)]), (
        "the pairs have become one-sided"
    )


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


# Questions of several rows --------------------------------------------------------------------------------------------


def test_record_per_query_differs_from_per_row():
    """A query with three answers makes three rows; the model says the same in each. The second is answered wrongly."""
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
    queries = [
        (f"q{i}", prediction, references)
        for i, (prediction, references) in enumerate(squad_pairs(draw.randint(1, 30), seed))
    ]
    rows = [query for query in queries for _ in query[2]]  # a row an answer, all with every answer
    draw.shuffle(rows)
    groups, predicted, references = (list(column) for column in zip(*rows, strict=True))
    exact, overlap = zip(
        *(map(max, zip(*(other_squad(p, r) for r in refs), strict=True)) for _, p, refs in queries), strict=True
    )
    answers = Answers(predicted, references, groups=groups)
    assert METRICS["exact_match"](answers) == pytest.approx(100 * sum(exact) / len(queries))
    assert METRICS["squad_f1"](answers) == pytest.approx(100 * sum(overlap) / len(queries))
