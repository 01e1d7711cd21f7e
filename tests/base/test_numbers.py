"""Numbers as tables print them."""

import pytest

from adept.base.numbers import three_digits


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01044, "0.0104"),
        (0, "0"),
        (1.626, "1.63"),
        (999.4, "999"),
        (999.6, "1,000"),
        (2538, "2,540"),
        (-1631, "-1,630"),
    ],
)
def test_three_digits(value, text):
    assert three_digits(value) == text
