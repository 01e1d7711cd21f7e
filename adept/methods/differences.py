"""Differences from the model's weights that are mostly zero: the modules of diff pruning.

They are parametrizations (torch.nn.utils.parametrize): the module that owns a weight computes with weight + difference
wherever it reads its weight, and the weight itself stays frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

OPEN = 5.0
"""Where each mask starts: nearly always 1."""
STRETCH = 1.5
"""A mask is 2 * STRETCH * sigmoid(.) - STRETCH, cut to [0, 1], so that it can be exactly 0 and exactly 1."""


class Difference(nn.Module):
    """A trained difference from one weight, which starts at zero. Its sum with the weight is formed in fp32."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.difference = nn.Parameter(torch.zeros_like(weight, dtype=torch.float32))
        self._sum: tuple[tuple, Tensor] | None = None  # what it was computed from, and the sum, for evaluation

    def masked(self) -> Tensor:
        """The difference as it is added, of the weight's shape."""
        return self.difference * (self.difference != 0)  # what is zero gets no gradient and stays zero

    def forward(self, weight: Tensor) -> Tensor:
        """weight -> weight + difference; computed again at evaluation only after something has changed."""
        if torch.is_grad_enabled():
            return weight + self.masked()
        source = tuple((tensor._version, tensor.data_ptr()) for tensor in (weight, *self.parameters()))
        if self._sum is None or self._sum[0] != source:
            self._sum = source, weight + self.masked()
        return self._sum[1]


class RelaxedDifference(Difference):
    """A difference with a mask on each element and one on the whole, which are trained with it.

    z = clip(3 sigmoid(logit(u) + mask) - 1.5, 0, 1) with u uniform over (0, 1), drawn by draw() for a training pass;
    the difference is z_tensor z w. Without a draw, as at evaluation, u is 1/2.
    """

    def __init__(self, weight: Tensor):
        super().__init__(weight)
        self.mask = nn.Parameter(torch.full_like(self.difference, OPEN))
        self.tensor_mask = nn.Parameter(self.difference.new_full((1,), OPEN))
        self._drawn: Tensor | None = None

    def gate(self, mask: Tensor, draw: bool) -> Tensor:
        """z of each element of the mask."""
        noise = torch.rand_like(mask).logit(eps=1e-6) if draw else 0.0
        return (2 * STRETCH * torch.sigmoid(mask + noise) - STRETCH).clamp(0, 1)

    def draw(self) -> None:
        """Draws the masks of a training pass."""
        self._drawn = self.gate(self.tensor_mask, True) * self.gate(self.mask, True) * self.difference

    def train(self, mode: bool = True) -> RelaxedDifference:
        """A drawn mask is for the pass for which it was drawn."""
        self._drawn = None
        return super().train(mode)

    def masked(self) -> Tensor:
        if self.training and self._drawn is not None:
            return self._drawn
        return self.gate(self.tensor_mask, False) * self.gate(self.mask, False) * self.difference

    def expected_size(self) -> Tensor:
        """The sum of the probabilities that a mask is not 0. The stretch is symmetric, so no shift is left in them."""
        return torch.sigmoid(self.mask).sum() + torch.sigmoid(self.tensor_mask).sum()


def add_differences(model: nn.Module, kind: type[Difference]) -> None:
    """Gives every parameter of the model a difference, in place. Where modules share a parameter, they share it too."""
    made: dict[nn.Parameter, Difference] = {}
    for module in list(model.modules()):
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight not in made:
                made[weight] = kind(weight).train(model.training)
            parametrize.register_parametrization(module, name, made[weight], unsafe=True)
    if issubclass(kind, RelaxedDifference):
        model.register_forward_pre_hook(draw_masks)


def differences(model: nn.Module) -> Iterator[Difference]:
    """Each of the model's differences once."""
    return (module for module in model.modules() if isinstance(module, Difference))


def draw_masks(model: nn.Module, inputs: tuple) -> None:
    """A hook before a pass: in training each difference draws its masks, once for all that share it."""
    if model.training and torch.is_grad_enabled():
        for difference in differences(model):
            difference.draw()


DIFFERENCE, MASK, TENSOR_MASK = ".difference", ".mask", ".tensor_mask"


def is_relaxed(weights: Mapping[str, Tensor]) -> bool:
    """Whether an adapter's weights are those of RelaxedDifferences and nothing else."""
    of = {ending: {name.removesuffix(ending) for name in weights if name.endswith(ending)}
          for ending in (DIFFERENCE, MASK, TENSOR_MASK)}  # fmt: skip
    same = of[DIFFERENCE] == of[MASK] == of[TENSOR_MASK]
    return bool(of[MASK]) and same and len(weights) == 3 * len(of[MASK])


@torch.no_grad()
def keep_largest(weights: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """{name: difference}: of all relaxed differences the elements that are largest, a `share` of them; zero elsewhere.

    weights: for which is_relaxed() holds.
    """
    masked = {}
    for name in (name for name in weights if name.endswith(DIFFERENCE)):
        owner = name.removesuffix(DIFFERENCE)
        relaxed = RelaxedDifference(weights[name])
        for part in ("difference", "mask", "tensor_mask"):
            getattr(relaxed, part).copy_(weights[f"{owner}.{part}"])
        masked[name] = relaxed.masked()
    sizes = torch.cat([difference.abs().flatten() for difference in masked.values()])
    kept = torch.zeros_like(sizes, dtype=torch.bool)
    kept[sizes.topk(kept_count(len(sizes), share)).indices] = True
    pieces = kept.split([difference.numel() for difference in masked.values()])
    return {
        name: difference * piece.view_as(difference)
        for (name, difference), piece in zip(masked.items(), pieces, strict=True)
    }


def kept_count(total: int, share: float) -> int:
    """How many elements of `total` are kept, at least one."""
    return max(1, round(share * total))
