"""Few-shot training sets (Appendix B.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adept.base.errors import UserError
from adept.config.run import RunConfig
from adept.data.example import Example
from adept.data.splits import permutation


def few_shot(examples: list[Example], config: RunConfig, labels: Sequence[str] | None) -> list[Example]:
    """--few_shot examples drawn by --seed. Raises UserError when there are not as many."""
    if config.few_shot > len(examples):
        raise UserError(f"--few_shot {config.few_shot} is more than the {len(examples)} training rows")
    draw = few_shot_released if config.few_shot_rule == "released" else few_shot_balanced
    return draw(examples, config, labels)


def few_shot_balanced(examples: list[Example], config: RunConfig, labels: Sequence[str] | None) -> list[Example]:
    """As many of each class as of any other, one more of some where the number does not divide.

    Free text has no classes to balance, so its rows are drawn at random.
    """
    shuffled = [examples[i] for i in permutation(len(examples), config.seed)]
    if labels is None:
        return shuffled[: config.few_shot]
    by_class: dict[str, list[Example]] = {}
    for example in shuffled:
        by_class.setdefault(example.target, []).append(example)
    chosen: list[Example] = []
    while len(chosen) < config.few_shot:
        for queue in by_class.values():
            if queue and len(chosen) < config.few_shot:
                chosen.append(queue.pop(0))
    return chosen


def few_shot_released(examples: list[Example], config: RunConfig, labels: Sequence[str] | None) -> list[Example]:
    """The released code's draw: k // classes of each, and any class for the k-th row alone.

    So 3 classes give 30 examples of 32. STS-B counts as two classes, up to 2.5 and above. Other free text raises
    UserError, as it fails there.
    """

    def class_of(example: Example) -> str:
        if labels is not None:
            return example.target
        try:
            return str(float(example.target) > 2.5)
        except ValueError as error:
            raise UserError(
                f"the released few-shot draw knows no classes of '{config.task}', whose targets are free text: "
                "--few_shot_rule balanced"
            ) from error

    share = config.few_shot // (len(labels) if labels is not None else 2)
    counts: dict[str, int] = {}
    chosen: list[Example] = []
    order = np.random.default_rng(config.seed).permutation(len(examples))  # what datasets' shuffle(seed) does
    for i in order.tolist():
        if len(chosen) == config.few_shot:
            break
        name = class_of(examples[i])
        if counts.get(name, 0) < share or len(chosen) == config.few_shot - 1:
            counts[name] = counts.get(name, 0) + 1
            chosen.append(examples[i])
    return chosen
