"""The paper's four other tasks: WinoGrande, Yelp polarity, SciTail, PAWS."""

from __future__ import annotations

from typing import Any, Literal

from adept.base.options import option
from adept.tasks.task import Split, Task, TaskOptions

BOTH_OPTIONS = ("sentence", ("option0", "option1"), ("option1", "option2"))
FIRST_OPTION_TWICE = ("sentence", ("option0", "option1"), ("option1", "option1"))
"""The released code's: the second option never appears."""


class WinograndeOptions(TaskOptions):
    """Options of WinoGrande."""

    winogrande_options: Literal["both", "first_twice"] = option(
        "both", "WinoGrande shows 'both' options, or option1 under both names (released code)"
    )

    def changes(self) -> dict[str, Any]:
        return {"text": FIRST_OPTION_TWICE} if self.winogrande_options == "first_twice" else {}


class ScitailOptions(TaskOptions):
    """Options of SciTail."""

    scitail_test: Literal["halves", "hub"] = option(
        "halves",
        "SciTail is tested on the second of the validation set's 'halves' (Appendix D) or on the 'hub' test set",
    )

    def changes(self) -> dict[str, Any]:
        native = {"split": Split.NATIVE, "splits": ("train", "validation", "test")}
        return native if self.scitail_test == "hub" else {}


ROWS = (
    Task("winogrande", ("allenai/winogrande", "winogrande_xl"), BOTH_OPTIONS, ("option0", "option1"),
         options=WinograndeOptions(), label="answer", values=("1", "2"),
         split=Split.CARVE_1000, groups=("other",), sizes=(39_398, 1_000, 1_267)),
    Task("yelp_polarity", ("fancyzhx/yelp_polarity", "plain_text"), (("sentence", "text"),), ("negative", "positive"),
         split=Split.CARVE_1000, splits=("train", "test"), max_train=100_000, groups=("other", "large"),
         sizes=(100_000, 1_000, 38_000)),
    Task("scitail", ("allenai/scitail", "snli_format"), (("premise", "sentence1"), ("hypothesis", "sentence2")),
         ("entailment", "neutral"), options=ScitailOptions(), label="gold_label", values=("entailment", "neutral"),
         groups=("other",), sizes=(23_596, 652, 652)),
    Task("paws", ("google-research-datasets/paws", "labeled_final"), ("sentence1", "sentence2"),
         ("not_paraphrase", "paraphrase"), split=Split.NATIVE, splits=("train", "validation", "test"),
         groups=("other",), sizes=(49_401, 8_000, 8_000)),
)  # fmt: skip
