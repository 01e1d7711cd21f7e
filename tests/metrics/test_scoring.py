"""Several metrics at once: order, undefined metrics, adversarial input, answers that cannot be scored."""

import subprocess
import sys

import pytest
from conftest import ROOT

from adept.metrics import METRICS, Answers, score

pytestmark = pytest.mark.filterwarnings("error")  # no warning of numpy, scipy or scikit-learn escapes

BINARY = ("0", "1")


def test_score_keeps_the_order_of_the_names():
    found = score(("f1", "accuracy"), Answers(["1", "0"], [("1",), ("1",)], BINARY))
    assert list(found.items()) == [("f1", pytest.approx(200 / 3)), ("accuracy", 50.0)]


def test_score_leaves_out_what_is_not_defined(monkeypatch):
    monkeypatch.setitem(METRICS, "undefined", lambda _: None)
    monkeypatch.setitem(METRICS, "zero", lambda _: 0.0)
    assert score(("undefined", "zero", "accuracy"), Answers(["1"], [("1",)])) == {"zero": 0.0, "accuracy": 100.0}


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
        (["\uff11", "0"], ["1", "0"], BINARY, (50, 0, 50, 0, 100, 100, 50, 50)),  # a fullwidth digit is no label
        (["true", "False"], ["True", "False"], ("False", "True"), (50, 0, 50, 0, 0, 0, 100, 100)),
        (["nan", "inf", "1e999"], ["0", "1", "1"], BINARY, (0, 0, 0, -100, 0, 0, 0, 0)),
        (["nan", "1e999"], ["nan", "1e999"], ("nan", "1e999"), (100, 100, 100, 100, 0, 0, 100, 100)),  # no numbers
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


def test_importing_the_metrics_does_not_import_torch():
    code = "import sys, adept.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
