"""BitFit: biases are trained, and added where the model has none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from adept.base.options import option
from adept.methods.method import Method
from adept.models.families import model_kind, named_blocks, norm_names


def train_biases(model) -> None:
    """Trains the model's own biases or, where it has none, biases that start at 0, in place.

    These are added to the linears of the blocks and, in encoder-decoders, to the norms of the blocks and the head, as
    Compacter's code does for T5. Raises UserError for a model without biases whose blocks are unknown.
    """
    from torch import nn

    from adept.methods.swapped_modules import OneTypeLayerNorm, add_bias, train_own_copies

    own = [module for module in model.modules() if module._parameters.get("bias") is not None]
    train_own_copies((module, "bias") for module in own)
    for module in own:
        if type(module) is nn.LayerNorm and module.weight is not None:
            module.__class__ = OneTypeLayerNorm
    if own:
        return
    inside = [block.name + "." for block in named_blocks(model)]
    linears = [
        module
        for name, module in model.named_modules()
        if name.startswith(tuple(inside)) and isinstance(module, nn.Linear)
    ]
    norms = []
    if model_kind(model) == "encoder-decoder":
        linears.append(model.get_output_embeddings())
        norms = [model.get_submodule(name) for name in norm_names(model) if name.startswith(tuple(inside))]
    for layer in (*linears, *norms):
        add_bias(layer, len(layer.weight))


class BitFit(Method):
    """Only biases are trained; where the model has none, as T5 and Llama, zero biases are added first."""

    name: ClassVar[str] = "bitfit"
    reference: ClassVar[str] = "Ben Zaken et al. 2022; Table 3"
    rates: ClassVar[Mapping[str, str]] = {r".*\.bias": "lr"}

    lr: float = option(3e-4, "peak rate of the biases (ATTEMPT's and Compacter's code)", ge=0.0)

    def apply(self, model, tokenizer):
        train_biases(model)
        return model
