"""Adapters: small networks behind the sublayers of a frozen model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from pydantic import field_validator

from adept.base.errors import UserError
from adept.base.options import WIDEST, option
from adept.base.validation import line_error
from adept.methods.method import Method
from adept.models.families import model_kind, named_blocks, norm_names

BLOCKS = "blocks of each stack that have adapters, counted from 0: '5-11', '0,2,4', or '5-' for 5 and all behind it"


class Adapter(Method):
    """Houlsby's adapters: y + W_up gelu(W_down y + b) + b' behind self-attention and feed-forward of every block.

    They stand before the sublayer's dropout and residual sum, and not behind cross-attention, as in Compacter's code.
    """

    name: ClassVar[str] = "adapter"
    reference: ClassVar[str] = "Houlsby et al. 2019; Table 3"
    rates: ClassVar[Mapping[str, str]] = {r".*": "lr"}

    bottleneck: int = option(24, "width of an adapter's hidden layer (d / 32 at T5-base)", ge=1, le=WIDEST)
    adapter_blocks: str = option("0-", BLOCKS)
    train_norms: bool | None = option(
        None, "the model's norms are trained, too; default: in encoder-decoders (Compacter's code), not in others"
    )
    lr: float = option(3e-4, "peak rate of adapters and norms (ATTEMPT's and Compacter's code)", ge=0.0)

    @field_validator("adapter_blocks")
    @classmethod
    def _is_a_list_of_ranges(cls, value: str) -> str:
        if not re.fullmatch(r"\d+(-\d*)?(,\d+(-\d*)?)*", value):
            raise line_error(
                f"--adapter_blocks must be numbers and ranges such as 5-11, 0,2,4 or 5-, not {value!r:.200}"
            )
        return value

    def block_numbers(self, count: int) -> set[int]:
        """The blocks with adapters, of a stack of `count` blocks. Raises UserError for one that is not there."""
        chosen: set[int] = set()
        for part in self.adapter_blocks.split(","):
            first, dash, last = part.partition("-")
            numbers = range(int(first), 1 + int(last or (count - 1 if dash else first)))
            if not numbers or numbers[-1] >= count:
                raise UserError(
                    f"--adapter_blocks {self.adapter_blocks}: there is no block {part}, because the model has "
                    f"{count} blocks a stack, 0-{count - 1}"
                )
            chosen.update(numbers)
        return chosen

    def apply(self, model, tokenizer):
        from adept.methods.swapped_modules import add_adapter, train_own_copies

        blocks = named_blocks(model)
        stacks = {side: [block for block in blocks if block.in_encoder == side] for side in (True, False)}
        for stack in filter(None, stacks.values()):
            numbers = self.block_numbers(len(stack))
            for block in stack:
                for name in (block.attention_output, block.feed_forward_output) if block.number in numbers else ():
                    add_adapter(model.get_submodule(name), self.bottleneck)
        norms = model_kind(model) == "encoder-decoder" if self.train_norms is None else self.train_norms
        layers = [model.get_submodule(name) for name in norm_names(model)] if norms else []
        train_own_copies([(norm, name) for norm in layers for name, _ in norm.named_parameters(recurse=False)])
        return model


class AdapterDrop(Adapter):
    """Adapters without those of the lower blocks, in training as in use."""

    name: ClassVar[str] = "adapterdrop"
    reference: ClassVar[str] = "Rueckle et al. 2021; Table 3"

    adapter_blocks: str = option("5-", BLOCKS)
