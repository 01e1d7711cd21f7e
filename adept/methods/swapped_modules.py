"""Layers of the model that a method gives a second part, by changing their class.

Names, weights and what reads them (T5's feed-forward asks for its last linear's type) stay. A class of its own, rather
than a hook, also tells torch.compile that a layer is no longer the plain one whose graph it may have kept.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """Houlsby's adapter without its residual: W_up gelu(W_down y + b_down) + b_up.

    Weights start as N(0, 0.01^2) and biases at 0, so training starts close to 0. The GELU is the tanh form.
    """

    def __init__(self, width: int, bottleneck: int, device):
        super().__init__()
        self.down = nn.Linear(width, bottleneck, device=device)
        self.up = nn.Linear(bottleneck, width, device=device)
        for linear in (self.down, self.up):
            nn.init.normal_(linear.weight, std=0.01)
            nn.init.zeros_(linear.bias)

    def forward(self, y: Tensor) -> Tensor:
        """y [..., D] -> what is added to it [..., D]."""
        return self.up(F.gelu(self.down(y), approximate="tanh"))


class Adapted(nn.Module):
    """A layer whose output passes through `self.adapter`, which is added to it."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y + self.adapter(y)


class Biased(nn.Module):
    """A layer whose output gets `self.bias` [D]."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y + self.bias.to(y.dtype)


class OneTypeLayerNorm(nn.LayerNorm):
    """A LayerNorm whose bias is trained in fp32 beside a frozen weight in bf16: torch's operation takes one type."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight.to(self.bias.dtype), self.bias, self.eps)


@functools.cache
def combined_class(part: type[nn.Module], base: type[nn.Module]) -> type[nn.Module]:
    """The subclass of both, in which part.forward() calls base.forward(). The same one each time."""
    return type(f"{part.__name__}{base.__name__}", (part, base), {})


def add_adapter(layer: nn.Module, bottleneck: int) -> None:
    """Puts an adapter behind a linear (nn.Linear, or GPT-2's Conv1D), in place."""
    width = layer.out_features if isinstance(layer, nn.Linear) else layer.nf
    layer.adapter = Bottleneck(width, bottleneck, layer.weight.device)
    layer.__class__ = combined_class(Adapted, type(layer))


def add_bias(layer: nn.Module, width: int) -> None:
    """Gives a linear or a norm without a bias one that starts at 0, in place."""
    layer.bias = nn.Parameter(layer.weight.new_zeros(width))
    if not isinstance(layer, nn.Linear):  # a linear's forward adds it
        layer.__class__ = combined_class(Biased, type(layer))


def train_own_copies(places: Iterable[tuple[nn.Module, str]]) -> None:
    """Puts trained copies of frozen parameters in their places. A parameter that several modules share has one copy.

    Copies of a model share their frozen parameters (copy_sharing_parameters), but never these.
    """
    copies: dict[nn.Parameter, nn.Parameter] = {}
    for module, name in places:
        parameter = getattr(module, name)
        if parameter not in copies:
            copies[parameter] = nn.Parameter(parameter.detach().clone())
        setattr(module, name, copies[parameter])
