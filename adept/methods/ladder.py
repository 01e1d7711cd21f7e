"""Ladder side tuning: a small network beside the model, through which alone gradients pass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import field_validator

from adept.base.options import WIDEST, option
from adept.base.validation import line_error
from adept.methods.method import GradientsOf, Method
from adept.models.families import MODEL_KINDS


class LadderSideTuning(Method):
    """A side network reads the blocks' outputs and gives the decoder's last state; T5 keeps its weights and no graph.

    At the start its blocks are T5's own, cut down to the weights that matter most for the task's training rows.
    """

    name: ClassVar[str] = "lst"
    reference: ClassVar[str] = "Sung et al. 2022"
    rates: ClassVar[Mapping[str, str]] = {r"ladder\..*": "lr"}
    kinds: ClassVar[tuple[str, ...]] = MODEL_KINDS[:1]

    side_factor: int = option(8, "the side network is narrower than the model by this factor", ge=1, le=WIDEST)
    side_blocks: str = option(
        "1,2,3,5,6,7,9,10,11", "numbers of the blocks, of encoder and decoder alike, beside which there is a side block"
    )
    side_init: Literal["pruned", "random"] = option(
        "pruned", "side blocks start as 'pruned' blocks of T5, by squared gradients, or 'random' as a new T5's"
    )
    importance_rows: int = option(
        1024, "training rows whose squared gradients 'pruned' adds up; all, where there are fewer", ge=1
    )
    lr: float = option(3e-3, "peak rate of the side network", ge=0.0)

    @field_validator("side_blocks")
    @classmethod
    def _ascending(cls, value: str) -> str:
        numbers = [int(number) for number in value.split(",")] if re.fullmatch(r"\d{1,4}(,\d{1,4})*", value) else []
        if not numbers or numbers != sorted(set(numbers)):
            raise line_error(f"--side_blocks must be ascending block numbers such as 1,2,3, not {value!r:.60}")
        return value

    def apply(self, model, tokenizer):
        from adept.models.ladder import add_ladder

        add_ladder(model, self.side_factor, [int(number) for number in self.side_blocks.split(",")])
        return model

    def before_training(self, model, gradients_of: GradientsOf) -> None:
        from adept.models.ladder_start import is_trained, start_from_t5

        if self.side_init == "random" or is_trained(model.ladder):  # by --init_from
            return
        start_from_t5(model, lambda weights: gradients_of(weights, batch_size=1, most=self.importance_rows))
