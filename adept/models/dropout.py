"""Dropout whose masks cost a CPU less, for the frozen model's layers.

torch draws 64 random bits for each element, one after the other, which was a fifth of a training step of T5 on a CPU
whose maker is not Intel. Here 16 bits decide, so one draw serves four elements. A GPU, and a compiled step, draw as
torch does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BITS = 16


def draws_own_masks(x: Tensor) -> bool:
    """Whether masks for x are drawn here and not by torch."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zeroes each element of x, of any shape, with probability p, to the nearest 1 / 65,536, and scales the others by 1
    / (1 - p).

    x itself where it is not training.
    """
    if not (training and p):
        return x
    if not draws_own_masks(x):
        return nn.functional.dropout(x, p)
    dropped, count = round(p * 2**BITS), x.numel()
    draws = torch.empty(-(-count * BITS // 64), dtype=torch.int64).random_(
        -(2**63), None
    )  # None: up to the largest number
    bits = draws.view(torch.int16)[:count].view(x.shape)  # uniform over -32,768 to 32,767
    return x * torch.where(
        bits >= dropped - 2 ** (BITS - 1), x.new_tensor(2**BITS / (2**BITS - dropped)), x.new_zeros(())
    )


class FastMaskDropout(nn.Dropout):
    """nn.Dropout with this file's masks."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        return dropout(x, self.p, self.training)
