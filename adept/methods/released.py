"""What the released code runs under the names of its baselines (discrepancies f-7 and f-8 of the protocol notes).

Also its offsets that the paper does not report (peft_model.py, PROMPT_TUNING_LORAXL and PROMPT_TUNING_LORAXAB).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from adept.base.options import WIDEST, option
from adept.methods.prompts import PROMPT_LEN, PROMPT_RATE, OffsetMethod, PositionOffsetMethod, PromptAndEmbedding

if TYPE_CHECKING:
    from torch import nn


class PTWithTable(PromptAndEmbedding):
    """Prompt tuning that also trains the embedding table."""

    name: ClassVar[str] = "pt_table"
    reference: ClassVar[str] = "the released code's prompt tuning"


class DePTReLU(OffsetMethod):
    """DePT whose offset is ReLU(E A) B, a function of the token and not of its position."""

    name: ClassVar[str] = "dept_relu"
    reference: ClassVar[str] = "the released code's DePT"
    folds: ClassVar[bool] = True

    rank: int = option(10, "rank of the offset's two matrices", ge=1, le=WIDEST)

    def offset(self, width: int) -> nn.Module:
        from adept.methods.offsets import TokenOffset

        return TokenOffset(width, self.rank, bias=False)


class LoRAXL(OffsetMethod):
    """ADePT with a second hidden layer under a norm: (g * N(ReLU(E A + a) H + h) + c) B + b."""

    name: ClassVar[str] = "loraxl"
    reference: ClassVar[str] = "the released code's LORAXL"
    folds: ClassVar[bool] = True

    bottleneck: int = option(19, "width of the offset's two hidden layers", ge=1, le=WIDEST)

    def offset(self, width: int) -> nn.Module:
        from adept.methods.offsets import NormalisedTokenOffset

        return NormalisedTokenOffset(width, self.bottleneck)


class LoRAXAB(PositionOffsetMethod):
    """The sum of ADePT's offset by token and DePT's by position, the latter times 8 / sqrt(rank)."""

    name: ClassVar[str] = "loraxab"
    reference: ClassVar[str] = "the released code's LORAXAB"
    rates: ClassVar[Mapping[str, str]] = PROMPT_RATE | {
        r".*\.offset\.position\..*": "offset_lr",
        r".*\.offset\.token\..*": "network_lr",
    }

    prompt_len: int = option(40, PROMPT_LEN, ge=0, le=WIDEST)
    rank: int = option(15, "rank of the offset's A B by position (released code: 30)", ge=1, le=WIDEST)
    bottleneck: int = option(19, "width of the offset's network by token (released code: 128)", ge=1, le=WIDEST)
    offset_lr: float = option(1e-4, "peak rate of A and B", ge=0.0)
    network_lr: float = option(1e-4, "peak rate of the network by token", ge=0.0)

    def offset(self, width: int) -> nn.Module:
        from adept.methods.offsets import PositionOffset, TokenAndPositionOffset, TokenOffset

        token = TokenOffset(width, self.bottleneck)
        position = PositionOffset(width, self.offset_len, self.rank, alpha=8)
        return TokenAndPositionOffset(token, position)
