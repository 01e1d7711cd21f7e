"""The metric of worked answers, which end with their result: "... #### 18" (GSM8K)."""

from __future__ import annotations

import re
from decimal import Decimal

from adept.metrics.answers import Answers

MARK = "####"
NUMBER = re.compile(r"\$?\s*(-?(?:\d[\d,]*\.?\d*|\.\d+))")


def read_result(text: str) -> Decimal | None:
    """The number behind the last "####", without a dollar sign and the commas of its thousands; None: there is none."""
    _, mark, rest = text.rpartition(MARK)
    found = NUMBER.match(rest.strip()) if mark else None
    return Decimal(found[1].replace(",", "")) if found else None


def final_number(answers: Answers) -> float:
    """Returns the percentage of answers whose result equals that of one of the row's references.

    Numbers are compared as numbers: 18 and 18.00 are equal. An answer without a result is wrong.
    """
    hits = [
        (result := read_result(prediction)) is not None and result in map(read_result, references)
        for prediction, references in zip(answers.predictions, answers.references, strict=True)
    ]
    return 100 * sum(hits) / len(hits)
