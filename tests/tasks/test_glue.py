"""STS-B's targets."""

import pytest
from rendering import rendered


@pytest.mark.parametrize(
    ("score", "paper", "official"),
    [
        (4.75, ("4.8", ("4.75",)), ("4.8", ("4.8",))),
        (0.3, ("0.4", ("0.3",)), ("0.3", ("0.3",))),
        (2.5, ("2.4", ("2.5",)), ("2.5", ("2.5",))),  # 12.5 fifths: to the even one
        (4.25, ("4.2", ("4.25",)), ("4.2", ("4.2",))),
        (5, ("5.0", ("5.0",)), ("5.0", ("5.0",))),
        (0, ("0.0", ("0.0",)), ("0.0", ("0.0",))),
    ],
)
def test_stsb_under_both_protocols(score, paper, official):
    row = {"sentence1": "a", "sentence2": "b", "label": score}
    for protocol, expected in (("paper", paper), ("official", official)):
        (example,) = rendered("stsb", [row], protocol=protocol)
        assert (example.target, example.references) == expected
