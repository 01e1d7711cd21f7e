"""Dropout with masks that are cheap to draw on a CPU, for the frozen model's layers.

torch draws 64 random bits for each element, one element after the other: a fifth of T5's training step on CPUs that
are not Intel's. Here each element takes 16 bits, so one draw serves four elements. GPUs and compiled steps use torch's
own dropout.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BITS = 16


def draws_own_masks(x: Tensor) -> bool:
    """Whether this file draws the masks for x, not torch."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zeroes each element of x with probability p, and multiplies the others by 1 / (1 - p).

    x has any shape. p is rounded to a multiple of 1 / 65,536. Without training, or with p = 0, x itself is returned.
    """
    if not (training and p):
        return x
    if not draws_own_masks(x):
        return nn.functional.dropout(x, p)
    dropped, count = round(p * 2**BITS), x.numel()
    draws = torch.empty(-(-count * BITS // 64), dtype=torch.int64).random_(-(2**63), None)  # None: the largest int64
    numbers = draws.view(torch.int16)[:count].view(x.shape)  # uniform over -32,768 to 32,767
    kept, scale = numbers >= dropped - 2 ** (BITS - 1), x.new_tensor(2**BITS / (2**BITS - dropped))
    return x * torch.where(kept, scale, x.new_zeros(()))


class FastMaskDropout(nn.Dropout):
    """nn.Dropout with this file's masks."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        return dropout(x, self.p, self.training)
