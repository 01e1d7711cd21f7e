"""Intervals over seeds, the noise of small test sets, and the paired bootstrap on made-up predictions."""

import json
import random

import numpy as np
import pytest
from scipy import stats

from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.tables import significance
from adept.tables.significance import (
    DrawnScores,
    difference_test,
    holm,
    is_small_test,
    paired_test,
    score_interval,
    seed_interval,
)


def record_of(name: str, task: str = "rte") -> dict:
    return {"run_id": name, "config": resolve({"task": task}).flat()}


@pytest.fixture
def made(tmp_path):
    """made(name, predictions, references, groups): a tested run whose file of predictions holds these rows."""

    def make(name, predictions, references, groups=None, task="rte"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        rows = [
            {"id": f"validation:{i}", "prediction": p, "references": [r]} | ({"group": groups[i]} if groups else {})
            for i, (p, r) in enumerate(zip(predictions, references, strict=True))
        ]
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return significance.TestedRun(record_of(name, task), str(tmp_path))

    return make


def coins(count, right, seed):
    """(predictions of which about `right` are right, references)"""
    draw = random.Random(seed)
    references = [draw.choice("01") for _ in range(count)]
    return [r if draw.random() < right else str(1 - int(r)) for r in references], references


def test_the_interval_over_seeds_is_students():
    scores = [70.0, 72.0, 77.0]
    expected = stats.t.interval(0.95, 2, loc=np.mean(scores), scale=stats.sem(scores))
    assert seed_interval(scores) == pytest.approx(expected)
    assert seed_interval([70.0]) is None


@pytest.mark.parametrize(("rows", "small"), [(28, True), (52, True), (139, True), (500, False)])
def test_small_test_sets_are_marked_with_the_interval_that_chance_makes(made, rows, small):
    record = {"test": {"accuracy": 80.0}, "sizes": {"test": rows}}
    assert is_small_test(record) is small
    right = round(0.8 * rows)
    low, high = score_interval([made("a", ["1"] * right + ["0"] * (rows - right), ["1"] * rows)], "accuracy")
    by_chance = np.diff(
        np.quantile(np.random.default_rng(0).binomial(rows, 0.8, size=20000) / rows * 100, [0.025, 0.975])
    )
    assert high - low == pytest.approx(by_chance, rel=0.2)


def test_the_interval_of_a_score_is_that_of_its_own_metric(made):
    """Matthews 40 on 60 rows is no share of 40%: its interval is that of Matthews."""
    references = ["0", "1"] * 30
    predictions = [r if i % 10 < 7 else str(1 - int(r)) for i, r in enumerate(references)]
    run = made("a", predictions, references, task="cola")
    assert run.score("matthews") == pytest.approx(40, abs=1)
    low, high = score_interval([run], "matthews")
    draws = [run.score("matthews", np.random.default_rng(n).integers(60, size=60).tolist()) for n in range(400)]
    assert (low, high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=6)
    assert low < run.score("matthews") < high


def test_equal_predictions_are_no_difference(made):
    predictions, references = coins(100, 0.8, 0)
    pair = made("a", predictions, references), made("b", predictions, references)
    found = paired_test(pair[:1], pair[1:], "accuracy")
    assert (found["difference"], found["low"], found["high"], found["p"]) == (0, 0, 0, 1)


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
def test_a_clear_difference_is_found_and_a_small_one_is_not(made, metric):
    references = coins(120, 1, 1)[1]
    good = [r if i % 10 else str(1 - int(r)) for i, r in enumerate(references)]  # 90%
    bad = [r if i % 3 else str(1 - int(r)) for i, r in enumerate(references)]  # 67%
    close = [p if i != 5 else str(1 - int(p)) for i, p in enumerate(good)]  # one row less
    runs = {
        name: made(name, predictions, references)
        for name, predictions in (("good", good), ("bad", bad), ("close", close))
    }
    clear = paired_test([runs["good"]], [runs["bad"]], metric)
    assert clear["low"] > 5 and clear["p"] < 0.01
    assert clear["difference"] == pytest.approx(runs["good"].score(metric) - runs["bad"].score(metric))
    assert paired_test([runs["good"]], [runs["close"]], metric)["p"] > 0.3


def test_the_p_value_holds_its_level(made):
    """Two equally good methods: p below 0.1 in about a tenth of the cases."""
    below = 0
    for case in range(30):
        references = coins(80, 1, case)[1]
        a, b = (coins_like(references, 0.7, 1000 * case + side) for side in (1, 2))
        found = paired_test(
            [made(f"a{case}", a, references)], [made(f"b{case}", b, references)], "accuracy", resamples=300
        )
        below += found["p"] < 0.1
    assert below <= 9


def coins_like(references, right, seed):
    draw = random.Random(seed)
    return [r if draw.random() < right else str(1 - int(r)) for r in references]


def test_rows_of_one_question_stay_together(made):
    """Thirty questions of ten rows, right or wrong as a whole, are no three hundred independent rows."""
    references = ["1"] * 300
    a, b = ["1"] * 180 + ["0"] * 120, ["1"] * 90 + ["0"] * 210
    groups = [str(i // 10) for i in range(300)]
    together = paired_test([made("a", a, references, groups)], [made("b", b, references, groups)], "accuracy")
    apart = paired_test([made("c", a, references)], [made("d", b, references)], "accuracy")
    assert together["difference"] == apart["difference"] == pytest.approx(30)
    assert together["high"] - together["low"] > 2 * (apart["high"] - apart["low"])


def test_seeds_are_averaged(made):
    references = ["1"] * 50
    ours = [made(f"o{i}", ["1"] * n + ["0"] * (50 - n), references) for i, n in enumerate((40, 50))]
    theirs = [made("t", ["1"] * 40 + ["0"] * 10, references)]
    assert paired_test(ours, theirs, "accuracy")["difference"] == pytest.approx(10)


def test_other_rows_are_not_compared(made):
    with pytest.raises(ValueError, match="different rows"):
        paired_test([made("a", ["1"] * 50, ["1"] * 50)], [made("b", ["1"] * 40, ["1"] * 40)], "accuracy")


def test_a_handful_of_rows_is_not_resampled(made):
    with pytest.raises(ValueError, match="too few"):
        paired_test([made("a", ["1"] * 4, ["1"] * 4)], [made("b", ["0"] * 4, ["1"] * 4)], "accuracy")


def test_predictions_that_cannot_be_read_are_named(tmp_path, made):
    made("a", ["1"], ["1"])
    (tmp_path / "runs" / "a" / "predictions.jsonl").write_text('{"id": 1')
    with pytest.raises(UserError, match=r"predictions\.jsonl holds no readable predictions"):
        significance.TestedRun(record_of("a"), str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n", b"[1]\n", b"[" * 100_000, b"\xff\n", b'{"id": "a", "prediction": "0"}',
        b'{"id": "a", "prediction": "0", "references": []}',
        b'{"id": "a", "prediction": 0, "references": ["0"]}', b'{"id": ["a"], "prediction": "0", "references": ["0"]}',
        b'{"id": "a", "prediction": "0", "references": [0]}',
        b'{"id": "a", "prediction": "0", "references": ["0"], "group": {}}',
    ],
)  # fmt: skip
def test_predictions_of_other_content_are_told(made, tmp_path, content):
    made("good", ["0"], ["0"])
    (tmp_path / "runs" / "good" / "predictions.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"predictions\.jsonl holds no readable predictions \(.*\); run it again$"):
        significance.TestedRun(record_of("good"), str(tmp_path))


# Several seeds and several comparisons -------------------------------------------------------------------------------


def null_rate(seeds: tuple[int, int], seed_spread: float, cases: int = 400) -> float:
    """How often two equally good configurations differ at p < 0.05: rows of one difficulty, seeds of one spread."""
    random, rows, below = np.random.default_rng(1), 150, 0
    for _ in range(cases):
        counts, difficulty = random.multinomial(rows, [1 / rows] * rows, size=200) / rows, random.normal(0.8, 1, rows)
        sides = []
        for count in seeds:
            skill, luck = random.normal(0, seed_spread, count), random.normal(0, 0.7, (rows, count))
            right = 100.0 * (difficulty[:, None] + skill + luck > 0)
            sides.append(DrawnScores(right.mean(0), counts @ right, rows))
        below += difference_test(*sides)["p"] < 0.05
    return below / cases


@pytest.mark.parametrize("spread", [0, 0.1, 0.5])
@pytest.mark.parametrize("seeds", [(3, 3), (2, 3)])
def test_the_level_is_nominal_whatever_the_seeds_differ_by(seeds, spread):
    """Between rows that all seeds share and seeds that differ by more than the rows explain."""
    assert 0.005 <= null_rate(seeds, spread) <= 0.09


def test_one_seed_each_says_nothing_of_other_seeds():
    """Why the table says so: where seeds differ, rows alone take luck for a difference."""
    assert null_rate((1, 1), 0) <= 0.08
    assert null_rate((1, 1), 0.5) > 0.4


def test_seeds_that_differ_widen_the_interval(made):
    references = ["1"] * 100
    near = [made(f"n{n}", ["1"] * n + ["0"] * (100 - n), references) for n in (79, 80, 81)]
    far = [made(f"f{n}", ["1"] * n + ["0"] * (100 - n), references) for n in (60, 80, 100)]
    theirs = [made(f"t{n}", ["1"] * n + ["0"] * (100 - n), references) for n in (59, 60, 61)]
    clear, unclear = (paired_test(ours, theirs, "accuracy") for ours in (near, far))
    assert clear["difference"] == unclear["difference"] == pytest.approx(20)
    assert clear["p"] < 0.001 < 0.05 < unclear["p"]
    assert unclear["low"] < 0 < clear["low"]


def test_holms_correction():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5]) == [0.5] and holm([]) == []
    assert holm([0.6, 0.9]) == [1.0, 1.0]
