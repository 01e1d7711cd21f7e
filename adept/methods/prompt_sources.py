"""What a prompt can be made of, in place of a table that is trained as it is."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PromptSource(nn.Module):
    """Makes the prompt of trained parameters of its own, in fp32, each time the model reads prompt ids.

    A source whose prompt is the same in all rows has forward() -> [m, D]. One whose prompt depends on the row sets
    `instance` and has forward(embeds [B, T, D], is_token [B, T]) -> [B, m, D]; is_token is true at the tokens of the
    row's text, neither prompt nor padding. What is drawn but not trained is a buffer that is not persistent.
    """

    instance: ClassVar[bool] = False


class ResidualPrompt(PromptSource):
    """P + LayerNorm(ReLU(P W_1 + b_1) W_2 + b_2): a table beside a network that all prompt tokens share."""

    def __init__(self, prompt: Tensor, hidden: int):
        """prompt [m, D]: the table's start. hidden: h, the network's width. The network starts as torch has it."""
        super().__init__()
        width = prompt.shape[1]
        self.prompt = nn.Parameter(prompt.detach().clone().float())  # [m, D]
        self.down, self.up = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)

    def forward(self) -> Tensor:
        """[m, D]"""
        return self.prompt + self.norm(self.up(F.relu(self.down(self.prompt))))


class ProductPrompt(PromptSource):
    """U V, of rank b; both start at U(-0.5, 0.5)."""

    def __init__(self, length: int, width: int, rank: int):
        super().__init__()
        self.u = nn.Parameter(torch.empty(length, rank).uniform_(-0.5, 0.5))  # [m, b]
        self.v = nn.Parameter(torch.empty(rank, width).uniform_(-0.5, 0.5))  # [b, D]

    def forward(self) -> Tensor:
        """[m, D]"""
        return self.u @ self.v


class ProjectedPrompt(PromptSource):
    """(Z F) * s + t: F is a fixed random projection to the model's width, Z [m, r], s and t [D] are trained.

    Z starts at N(0, 1), s at 1, t at 0; F is uniform within Xavier's bound sqrt(6 / (r + D)).
    """

    def __init__(self, length: int, width: int, rank: int, seed: int):
        """seed: of F alone, which is drawn on the CPU, so that it is the same on every machine."""
        super().__init__()
        bound = math.sqrt(6 / (rank + width))
        fixed = torch.empty(rank, width, device="cpu").uniform_(-bound, bound, generator=seeded_generator(seed))
        self.register_buffer("projection", fixed, persistent=False)  # [r, D]
        self.z = nn.Parameter(torch.randn(length, rank))  # [m, r]
        self.scale = nn.Parameter(torch.ones(width))  # [D]
        self.shift = nn.Parameter(torch.zeros(width))  # [D]

    def forward(self) -> Tensor:
        """[m, D]"""
        return (self.z @ self.projection) * self.scale + self.shift


def seeded_generator(seed: int) -> torch.Generator:
    """A generator on the CPU whose numbers are not those that torch.manual_seed(seed) leads to."""
    return torch.Generator("cpu").manual_seed(2**32 + seed)


class RecurrentPrompt(PromptSource):
    """MLP(BiLSTM(E)): rows E [m, D] that start at N(0, 1), two layers of LSTM of width D / 2 in each direction."""

    def __init__(self, length: int, width: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(length, width))  # [m, D]
        self.lstm = nn.LSTM(width, width // 2, num_layers=2, bidirectional=True, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self) -> Tensor:
        """[m, D]"""
        return self.mlp(self.lstm(self.embedding[None])[0][0])


class PrunedPrompt(PromptSource):
    """A table whose tokens are cut into equal pieces, of which some are removed.

    A removed piece is one of zeros. It gets no gradient, so that it stays zero, and no other state is needed.
    """

    def __init__(self, prompt: Tensor, pieces: int):
        """prompt [m, D]; pieces: q, a divisor of D."""
        super().__init__()
        self.prompt = nn.Parameter(prompt.detach().clone().float())  # [m, D]
        self.pieces = pieces

    def cut(self, table: Tensor) -> Tensor:
        """[m, D] -> [m, q, D / q]"""
        return table.unflatten(1, (self.pieces, -1))

    @property
    def kept(self) -> Tensor:
        """[m, q]: which pieces are not removed."""
        return (self.cut(self.prompt.detach()) != 0).any(-1)

    def forward(self) -> Tensor:
        """[m, D]"""
        return (self.cut(self.prompt) * self.kept[..., None]).flatten(1)

    @torch.no_grad()
    def remove_others(self, kept: Tensor) -> None:
        """Removes all pieces but those of kept [m, q]."""
        self.cut(self.prompt).mul_(kept[..., None])
