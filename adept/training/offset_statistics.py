"""Sizes of embeddings and offsets (Table 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from adept.base.errors import UserError
from adept.data.codec import pad
from adept.data.example import Example
from adept.models.families import input_embedding_owner
from adept.training.session import Session

BINS = 40
"""Of the histograms of norms."""


class Sizes:
    """Absolute values of vectors that arrive in batches: moments over their elements, means by dimension, a histogram of norms."""

    def __init__(self, width: int):
        self.elements, self.total, self.squares = 0, 0.0, 0.0  # over real tokens
        self.positions, self.columns = 0, np.zeros(width)  # over all positions
        self.top, self.counts = 2.0**-20, np.zeros(BINS, dtype=int)  # norms lie in [0, top)

    def add(self, vectors: Tensor, real: Tensor, positions: Tensor) -> None:
        """vectors [B, T, D]; real, positions [B, T]: which are tokens of the text, and which the released code averages over."""
        absolute = vectors.abs().to(torch.promote_types(vectors.dtype, torch.float32))
        self.positions += int(positions.sum())
        self.columns += (absolute * positions[..., None]).sum((0, 1)).double().cpu().numpy()
        self.elements += int(real.sum()) * vectors.shape[-1]
        self.total += absolute.sum(-1)[real].cpu().double().sum().item()
        squares = absolute.square().sum(-1)[real].cpu().double().numpy()
        self.squares += squares.sum().item()
        norms = np.sqrt(squares)
        while self.top <= norms.max(initial=0) < np.inf:  # twice the range: neighbouring bins merge
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, dtype=int)])
            self.top *= 2
        self.counts += np.bincount((norms / self.top * BINS).astype(int), minlength=BINS)

    def of_tokens(self) -> dict:
        """Mean and variance of the elements' absolute values (Table 2), and how the tokens' norms are distributed."""
        mean = self.total / self.elements
        edges = (np.arange(BINS + 1) * self.top / BINS).tolist()
        variance = max(0.0, self.squares / self.elements - mean**2)
        return {"mean": mean, "variance": variance, "norms": {"edges": edges, "counts": self.counts.tolist()}}

    def of_dimensions(self) -> dict:
        """Mean and standard deviation of the D means of absolute values over all positions (what the released code prints)."""
        means = self.columns / self.positions
        return {"mean": means.mean().item(), "std": means.std().item()}


@torch.no_grad()
def offset_statistics(session: Session, examples: Sequence[Example]) -> dict:
    """Absolute values of the elements of E and of the offset, over encoded examples' sources, the prompt left out (Table 2).

    {"tokens", "embeddings": {"mean", "variance", "norms": {"edges", "counts"}}, "offset": the same, or absent without an offset,
    "released": {"positions", "embeddings": {"mean", "std"}, "offset"}}. `mean` and `variance` are over real tokens, as the text has it;
    `norms` is a histogram of the tokens' Euclidean norms; `released` is the released code's statistic: mean and standard deviation of
    the D means over all positions, padding up to --max_source_len included.
    """
    if not examples:
        raise UserError("no examples to measure offsets on")
    codec, hook = session.codec, session.prompted_embedding
    table = hook or input_embedding_owner(session.model).get_input_embeddings()
    sizes: dict[str, Sizes] = {}
    width = len(codec.prompt_ids) + codec.max_source_len
    was_training = session.model.training
    session.model.eval()
    for start in range(0, len(examples), session.config.eval_batch_size):
        rows = [(*codec.prompt_ids, *e.source_ids) for e in examples[start : start + session.config.eval_batch_size]]
        ids = pad(rows, codec.tokenizer.pad_token_id, "right", width).to(session.device)  # [B, width]
        content = torch.arange(width, device=ids.device) >= len(codec.prompt_ids)
        real = content & (torch.arange(width) < torch.tensor([[len(row)] for row in rows])).to(ids.device)
        embeds, offset = hook.parts(ids)[:2] if hook else (table(ids), None)
        for name, vectors in {"embeddings": embeds, "offset": offset}.items():
            if vectors is not None:
                sizes.setdefault(name, Sizes(vectors.shape[-1])).add(vectors, real, content.expand_as(real))
    session.model.train(was_training)
    return {
        "tokens": sum(len(e.source_ids) for e in examples),
        **{name: size.of_tokens() for name, size in sizes.items()},
        "released": {"positions": sizes["embeddings"].positions, **{name: size.of_dimensions() for name, size in sizes.items()}},
    }
