"""Offsets on input embeddings: by token (ADePT, Eq. 3), by position (DePT, Eq. 2), and by both."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TokenwiseOffset(nn.Module):
    """An offset of the token alone, whatever its place: hidden numbers of the token times a matrix, plus a vector.

    So it folds into the embedding table, and it is a LoRA of that table: of rank r, or r + 1 with the vector.
    """

    def hidden(self, embeds: Tensor) -> Tensor:
        """embeds [..., D] -> [..., r]"""
        raise NotImplementedError

    def output(self) -> tuple[Tensor, Tensor | None]:
        """(matrix [r, D], vector [D] or None)"""
        raise NotImplementedError

    def forward(self, embeds: Tensor, is_prompt: Tensor) -> Tensor:
        """embeds [B, T, D] -> offset [B, T, D]; `is_prompt` [B, T] is not read."""
        matrix, vector = self.output()
        return F.linear(self.hidden(embeds), matrix.T, vector)


class TokenOffset(TokenwiseOffset):
    """ADePT's token-shared network, Eq. 3: f(E) = ReLU(E W_down + b_1) W_up + b_2.

    W_up and both biases start at 0, so training starts at f = 0. `bias=False` is the variant that the released code
    runs under DePT's name (peft_model.py, PROMPT_TUNING_LORA).
    """

    def __init__(self, width: int, bottleneck: int, *, dropout: float = 0.0, init: str = "rank", bias: bool = True):
        """init: W_down ~ U(-b, b), with b = 1/sqrt(bottleneck) for 'rank' and 1/sqrt(width) for 'width'.

        'rank' is the released code's: kaiming_uniform(a=sqrt 5) on a [width, bottleneck] tensor takes the bottleneck
        for the fan-in. 'width' is nn.Linear's.
        """
        super().__init__()
        bound = 1 / math.sqrt({"rank": bottleneck, "width": width}[init])
        self.w_down = nn.Parameter(torch.empty(width, bottleneck).uniform_(-bound, bound))  # [D, r]
        self.w_up = nn.Parameter(torch.zeros(bottleneck, width))  # [r, D]
        self.b_1 = nn.Parameter(torch.zeros(bottleneck)) if bias else None  # [r]
        self.b_2 = nn.Parameter(torch.zeros(width)) if bias else None  # [D]
        self.dropout = nn.Dropout(dropout)  # before the ReLU, as the released code has it

    def hidden(self, embeds: Tensor) -> Tensor:
        """embeds [..., D] -> [..., r]"""
        hidden = embeds @ self.w_down if self.b_1 is None else F.linear(embeds, self.w_down.T, self.b_1)
        return F.relu(self.dropout(hidden))

    def output(self) -> tuple[Tensor, Tensor | None]:
        """(W_up [r, D], b_2 [D] or None)"""
        return self.w_up, self.b_2


class PositionOffset(nn.Module):
    """DePT's offset, Eq. 2: row j of A B is added to the token at index j after the prompt, for j < s.

    Ids without a prompt are a cached decode step and go on counting where the last forward ended, so that generated
    tokens carry the offset they would carry under teacher forcing.
    """

    def __init__(self, width: int, length: int, rank: int, *, alpha: float = 0.0, shift: int = 0):
        """alpha > 0 scales A B by alpha / sqrt(rank) (DePT's released code, alpha = 8); 0 is Eq. 2 as printed.

        shift: cyclic left shift of A B's rows (Table 1): index j carries row (j + shift) mod s.
        """
        super().__init__()
        self.a = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(length, rank), a=math.sqrt(5)))  # [s, r]
        self.b = nn.Parameter(torch.zeros(rank, width))  # [r, D]
        self.scale = alpha / math.sqrt(rank) if alpha else 1.0
        self.shift = shift
        self._next_position: Tensor | None = None  # [B, 1], of the token after the last forward's columns

    def forward(self, embeds: Tensor, is_prompt: Tensor) -> Tensor:
        """embeds [B, T, D], is_prompt [B, T] -> offset [B, T, D], zero before the prompt and from index s on."""
        rows, width = is_prompt.shape
        carried = self._next_position
        if carried is None or rows % len(carried):
            carried = torch.full((rows, 1), len(self.a), device=is_prompt.device)  # nothing to continue: no offset
        # Beams and label candidates multiply the rows of the prefill; each block of them shares its example's start.
        carried = carried.repeat_interleave(rows // len(carried), dim=0)
        # Counted from the prompt's end, since its beginning may have been computed before (ComputedPrompt).
        after = width - is_prompt.flip(1).int().argmax(dim=1, keepdim=True)  # [B, 1]
        start = torch.where(is_prompt.any(dim=1, keepdim=True), -after, carried)
        position = start + torch.arange(width, device=is_prompt.device)  # [B, T]
        self._next_position = position[:, -1:] + 1
        carries = (position >= 0) & (position < len(self.a))
        row = position.clamp(0, len(self.a) - 1).add(self.shift).remainder(len(self.a))
        low_rank = F.embedding(row, self.a)  # [B, T, r]
        return (low_rank @ self.b) * (self.scale * carries[..., None])

    def rows(self) -> Tensor:
        """[s, D]: the offset of each index after the prompt."""
        return self.scale * (self.a.roll(-self.shift, 0) @ self.b)

    def forget(self) -> None:
        """No decode step follows the last forward."""
        self._next_position = None


class NormalisedTokenOffset(TokenwiseOffset):
    """A token-shared network with a hidden layer under a norm: (g * N(ReLU(E A + a) H + h) + c) B + b.

    N subtracts the mean over the r hidden numbers and divides by their standard deviation. B, a, h, c and b start at 0
    and g at 1, so training starts at an offset of 0.
    """

    def __init__(self, width: int, bottleneck: int):
        """A and H start uniform within 1 / sqrt(bottleneck), as the released code draws them."""
        super().__init__()
        bound = 1 / math.sqrt(bottleneck)
        self.w_down = nn.Parameter(torch.empty(width, bottleneck).uniform_(-bound, bound))  # A [D, r]
        self.w_hidden = nn.Parameter(torch.empty(bottleneck, bottleneck).uniform_(-bound, bound))  # H [r, r]
        self.w_up = nn.Parameter(torch.zeros(bottleneck, width))  # B [r, D]
        self.b_down, self.b_hidden = nn.Parameter(torch.zeros(bottleneck)), nn.Parameter(torch.zeros(bottleneck))
        self.norm = nn.LayerNorm(bottleneck, eps=1e-12)  # g, c [r]
        self.b_up = nn.Parameter(torch.zeros(width))  # [D]

    def hidden(self, embeds: Tensor) -> Tensor:
        """embeds [..., D] -> [..., r]"""
        hidden = F.relu(F.linear(embeds, self.w_down.T, self.b_down))
        return self.norm(F.linear(hidden, self.w_hidden.T, self.b_hidden))

    def output(self) -> tuple[Tensor, Tensor | None]:
        """(B [r, D], b [D])"""
        return self.w_up, self.b_up


class TokenAndPositionOffset(nn.Module):
    """The sum of a TokenOffset and a PositionOffset."""

    def __init__(self, token: TokenOffset, position: PositionOffset):
        super().__init__()
        self.token, self.position = token, position

    def forward(self, embeds: Tensor, is_prompt: Tensor) -> Tensor:
        """embeds [B, T, D], is_prompt [B, T] -> offset [B, T, D]."""
        return self.token(embeds, is_prompt) + self.position(embeds, is_prompt)

    def forget(self) -> None:
        """No decode step follows the last forward."""
        self.position.forget()
