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
"""The number of bins of a histogram of norms. Even, because neighbouring bins are merged in pairs."""


class MagnitudeStatistics:
    """Statistics of the absolute values of vectors that arrive in batches.

    They are moments of the elements, means of the dimensions and a histogram of the vectors' norms.
    """

    def __init__(self, width: int):
        """width: D, the number of dimensions of a vector."""
        self.elements, self.total, self.squares = 0, 0.0, 0.0  # over the tokens of the texts
        self.positions, self.columns = 0, np.zeros(width)  # over all positions
        self.upper_edge, self.counts = 2.0**-20, np.zeros(BINS, dtype=int)  # a histogram of norms in [0, upper_edge)

    def add(self, vectors: Tensor, is_token: Tensor, is_position: Tensor) -> None:
        """Adds a batch of vectors [B, T, D].

        is_token [B, T]: the vectors of tokens of a text. is_position [B, T]: the vectors over which the released code
        averages.
        """
        absolute = vectors.abs().to(torch.promote_types(vectors.dtype, torch.float32))
        self.positions += int(is_position.sum())
        self.columns += (absolute * is_position[..., None]).sum((0, 1)).double().cpu().numpy()
        self.elements += int(is_token.sum()) * vectors.shape[-1]
        self.total += absolute.sum(-1)[is_token].cpu().double().sum().item()
        squared_norms = absolute.square().sum(-1)[is_token].cpu().double().numpy()
        self.squares += squared_norms.sum().item()
        norms = np.sqrt(squared_norms)
        while self.upper_edge <= norms.max(initial=0) < np.inf:  # double the range: merge neighbouring bins
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.concatenate([merged, np.zeros(BINS // 2, dtype=int)])
            self.upper_edge *= 2
        self.counts += np.bincount((norms / self.upper_edge * BINS).astype(int), minlength=BINS)

    def over_tokens(self) -> dict:
        """Mean and variance of the elements' absolute values (Table 2) and the histogram of norms, all of tokens."""
        mean = self.total / self.elements
        variance = max(0.0, self.squares / self.elements - mean**2)
        edges = (np.arange(BINS + 1) * self.upper_edge / BINS).tolist()
        return {"mean": mean, "variance": variance, "norms": {"edges": edges, "counts": self.counts.tolist()}}

    def over_dimensions(self) -> dict:
        """Mean and standard deviation of D numbers: each dimension's mean absolute value over all positions.

        The released code prints these.
        """
        means = self.columns / self.positions
        return {"mean": means.mean().item(), "std": means.std().item()}


@torch.no_grad()
def offset_statistics(session: Session, examples: Sequence[Example]) -> dict:
    """Absolute values of the elements of embeddings E and offsets, over encoded examples' sources (Table 2).

    The prompt is left out.

    Returns {"tokens", "embeddings": {"mean", "variance", "norms": {"edges", "counts"}}, "offset": the same, absent if
    the method has no offset, "released": {"positions", "embeddings": {"mean", "std"}, "offset"}}. `mean` and
    `variance` are over the tokens of the texts, as the paper's text says; `norms` is a histogram of the tokens'
    Euclidean norms; `released` holds the released code's statistic, the mean and the standard deviation of the D
    means over all positions, which include the padding up to --max_source_len.
    Raises UserError if there are no examples.
    """
    if not examples:
        raise UserError("no examples to measure offsets on")
    codec, hook = session.codec, session.prompted_embedding
    embedding = hook or input_embedding_owner(session.model).get_input_embeddings()
    statistics: dict[str, MagnitudeStatistics] = {}
    width = len(codec.prompt_ids) + codec.max_source_len
    was_training = session.model.training
    session.model.eval()
    for start in range(0, len(examples), session.config.eval_batch_size):
        batch = examples[start : start + session.config.eval_batch_size]
        rows = [(*codec.prompt_ids, *e.source_ids) for e in batch]
        ids = pad(rows, codec.tokenizer.pad_token_id, "right", width).to(session.device)  # [B, width]
        lengths = torch.tensor([[len(row)] for row in rows])  # [B, 1]
        after_prompt = torch.arange(width, device=ids.device) >= len(codec.prompt_ids)  # [width]
        is_token = after_prompt & (torch.arange(width) < lengths).to(ids.device)  # [B, width]
        embeds, offset = hook.parts(ids)[:2] if hook else (embedding(ids), None)
        for name, vectors in {"embeddings": embeds, "offset": offset}.items():
            if vectors is not None:
                statistic = statistics.setdefault(name, MagnitudeStatistics(vectors.shape[-1]))
                statistic.add(vectors, is_token, after_prompt.expand_as(is_token))
    session.model.train(was_training)
    return {
        "tokens": sum(len(e.source_ids) for e in examples),
        **{name: statistic.over_tokens() for name, statistic in statistics.items()},
        "released": {
            "positions": statistics["embeddings"].positions,
            **{name: statistic.over_dimensions() for name, statistic in statistics.items()},
        },
    }
