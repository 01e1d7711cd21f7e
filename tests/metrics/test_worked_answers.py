"""The number behind "####" of a worked answer."""

from decimal import Decimal

import pytest

from adept.metrics.worked_answers import read_result


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("6 * 7 = 42\n#### 42", "42"),
        ("####42", "42"),
        ("#### 1,200", "1200"),
        ("#### $1,200.50 in all", "1200.50"),
        ("#### -3", "-3"),
        ("#### 18.", "18"),
        ("#### .5", "0.5"),
        ("#### 1\n#### 2", "2"),
        ("the result is 42", None),
        ("####", None),
        ("#### many", None),
        ("#### ,", None),
        ("", None),
    ],
)
def test_the_result_is_the_number_behind_the_last_mark(text, result):
    assert read_result(text) == (None if result is None else Decimal(result))


def test_results_are_compared_as_numbers_and_an_answer_without_one_is_wrong(measure):
    gold = ["a\n#### 18", "b\n#### 1,200", "c\n#### 5", "d\n#### 7"]
    predicted = ["other words #### 18.00", "#### 1200", "5", "#### 8"]
    assert measure("final_number", predicted, gold, None) == 50
    assert measure("final_number", gold, gold, None) == 100
