"""What the released code runs under the names of its baselines (discrepancies f-7 and f-8 of the protocol notes)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from adept.base.options import WIDEST, option
from adept.methods.prompts import PROMPT_RATE, OffsetMethod, PromptMethod
from adept.models.families import input_embedding_owner

if TYPE_CHECKING:
    from torch import nn


class PTWithTable(PromptMethod):
    """Prompt tuning that also trains the embedding table."""

    name: ClassVar[str] = "pt_table"
    reference: ClassVar[str] = "the released code's prompt tuning"
    rates: ClassVar[Mapping[str, str]] = PROMPT_RATE | {r"(?!.*\.prompt).*": "lr"}
    stacks: ClassVar[bool] = False
    trains_model: ClassVar[bool] = True

    lr: float = option(1e-4, "peak rate of the embedding table", ge=0.0)

    def apply(self, model, tokenizer):
        table = input_embedding_owner(model).get_input_embeddings().weight
        model = super().apply(model, tokenizer)
        table.requires_grad_(True)
        return model


class DePTReLU(OffsetMethod):
    """DePT whose offset is ReLU(E A) B, a function of the token and not of its position."""

    name: ClassVar[str] = "dept_relu"
    reference: ClassVar[str] = "the released code's DePT"
    folds: ClassVar[bool] = True

    rank: int = option(10, "rank of the offset's two matrices", ge=1, le=WIDEST)

    def offset(self, width: int) -> nn.Module:
        from adept.methods.offsets import TokenOffset

        return TokenOffset(width, self.rank, bias=False)
