"""A ladder's start as T5's own blocks, cut down to what matters most for a task.

The importance of a weight is the sum of its squared gradients over training rows. The columns of the embedding table
that matter most are the dimensions that all states keep. Of each attention, a share of each head's rows of q, k and v
stays, by the product of the three matrices' importances; of each feed-forward, rows of its first matrix. What is kept
of a matrix's rows is what is kept of the next one's columns. T5's final norms and the relative biases of its first
blocks are taken over too; the projections between T5 and the ladder stay random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from adept.base.errors import UserError
from adept.models.ladder import Ladder, SideStack

Importance = Mapping[nn.Parameter, Tensor]
"""{weight: the sum of its squared gradients, of its shape}."""

SUBLAYERS = ("SelfAttention", "EncDecAttention", "DenseReluDense")


def side_and_own(model: PreTrainedModel) -> list[tuple[SideStack, nn.Module]]:
    """(side stack, T5's stack) of encoder and decoder."""
    return [(model.ladder.encoder, model.encoder), (model.ladder.decoder, model.decoder)]


def sublayers(block: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """(its norm, an attention or feed-forward) of each of a block's layers."""
    for layer in block.layer:
        yield layer.layer_norm, next(getattr(layer, name) for name in SUBLAYERS if hasattr(layer, name))


def is_attention(sublayer: nn.Module) -> bool:
    return hasattr(sublayer, "n_heads")


def inner_matrices(sublayer: nn.Module) -> list[nn.Linear]:
    """The matrices whose rows are heads' or hidden units: q, k and v, or wi (wi_0 and wi_1 where it is gated)."""
    if is_attention(sublayer):
        return [sublayer.q, sublayer.k, sublayer.v]
    return [linear for name, linear in sublayer.named_children() if name.startswith("wi")]


def scored_weights(model: PreTrainedModel) -> list[nn.Parameter]:
    """T5's weights whose importance decides what the ladder keeps."""
    blocks = [stack.block[number] for side, stack in side_and_own(model) for number in side.numbers]
    matrices = [matrix for block in blocks for _, sublayer in sublayers(block) for matrix in inner_matrices(sublayer)]
    return [model.shared.weight, *(matrix.weight for matrix in matrices)]


def most_important(scores: Tensor, count: int) -> Tensor:
    """The numbers of the `count` greatest scores along the last dimension, in ascending order."""
    return scores.topk(count, dim=-1).indices.sort(dim=-1).values


def kept_rows(side: nn.Module, own: nn.Module, importance: Importance) -> Tensor:
    """The rows of T5's matrices that the sublayer `side` keeps of `own`."""
    # In logarithms: squares of small gradients, multiplied, are less than the least float.
    score = sum(importance[matrix.weight].sum(1).log() for matrix in inner_matrices(own))
    if not is_attention(own):
        return most_important(score, side.wo.in_features)
    by_head = most_important(score.view(own.n_heads, -1), side.key_value_proj_dim)
    first = torch.arange(own.n_heads, device=score.device)[:, None] * own.key_value_proj_dim
    return (by_head + first).flatten()


@torch.no_grad()
def cut_into_ladder(model: PreTrainedModel, importance: Importance) -> None:
    """Gives the ladder's blocks and norms the values of T5's most important ones, in place."""
    columns = most_important(importance[model.shared.weight].sum(0), model.ladder.up.in_features)
    for side_stack, stack in side_and_own(model):
        for block, number in zip(side_stack.blocks, side_stack.numbers, strict=True):
            pairs = zip(sublayers(block), sublayers(stack.block[number]), strict=True)
            for (side_norm, side), (norm, own) in pairs:
                side_norm.weight.copy_(norm.weight[columns])
                rows = kept_rows(side, own, importance)
                for small, large in zip(inner_matrices(side), inner_matrices(own), strict=True):
                    small.weight.copy_(large.weight[rows][:, columns])
                small, large = (side.o, own.o) if is_attention(own) else (side.wo, own.wo)
                small.weight.copy_(large.weight[columns][:, rows])
        first, own_first = (blocks[0].layer[0].SelfAttention for blocks in (side_stack.blocks, stack.block))
        first.relative_attention_bias.weight.copy_(own_first.relative_attention_bias.weight)
        side_stack.norm.weight.copy_(stack.final_layer_norm.weight[columns])


def start_from_t5(model: PreTrainedModel, gradients: Callable[[Sequence[Tensor]], Iterator[list[Tensor]]]) -> None:
    """Cuts T5's blocks into its ladder, which has not been trained yet, in place.

    gradients: called with weights, yields their gradients of T5's loss, of one training row after another.
    Raises UserError where T5's weights are shared out over processes.
    """
    weights, ladder = scored_weights(model), model.ladder
    if any(isinstance(weight, DTensor) for weight in weights):
        raise UserError(
            "--side_init pruned needs the gradients of whole weights: --side_init random with --shard_model"
        )
    importance = {weight: torch.zeros_like(weight, dtype=torch.float64) for weight in weights}
    was_enabled, ladder.enabled = ladder.enabled, False
    for weight in weights:
        weight.requires_grad_(True)
    try:
        for found in gradients(weights):
            for weight, gradient in zip(weights, found, strict=True):
                importance[weight] += gradient.double().square()
    finally:
        for weight in weights:
            weight.requires_grad_(False)
        ladder.enabled = was_enabled
    cut_into_ladder(model, importance)


def is_trained(ladder: Ladder) -> bool:
    """Whether its gates, which a training step moves, have left their zeros."""
    return any(bool(side.gates.any()) for side in (ladder.encoder, ladder.decoder))
