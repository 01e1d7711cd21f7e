"""T5 written out as formulas over a mapping of its weights, with the parts that adapters and BitFit add to it."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.t5.modeling_t5 import T5Attention


def linear(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """x W^T, with the bias and the adapter behind it where the weights have them."""
    y = x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0)
    if f"{name}.adapter.down.weight" not in weights:
        return y
    down, up = (
        {part: weights[f"{name}.adapter.{side}.{part}"] for part in ("weight", "bias")} for side in ("down", "up")
    )
    hidden = y @ down["weight"].T + down["bias"]
    hidden = 0.5 * hidden * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (hidden + 0.044715 * hidden**3)))
    return y + hidden @ up["weight"].T + up["bias"]


def norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    scaled = x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    return weights[f"{name}.weight"] * scaled + weights.get(f"{name}.bias", 0)


def attention(weights, name: str, config, x: Tensor, source: Tensor, bias: Tensor) -> Tensor:
    """x [T, D] attends to source [S, D]; bias [H, T, S] is added to the scores."""
    q, k, v = (
        linear(weights, f"{name}.{part}", of).view(len(of), config.num_heads, config.d_kv).transpose(0, 1)
        for part, of in (("q", x), ("k", source), ("v", source))
    )
    mixed = (q @ k.transpose(1, 2) + bias).softmax(-1) @ v  # [H, T, d_kv]
    return linear(weights, f"{name}.o", mixed.transpose(0, 1).flatten(1))


def position_bias(weights, side: str, config, length: int) -> Tensor:
    """[H, T, T]; in the decoder, later positions are out of sight."""
    positions, decoder = torch.arange(length), side == "decoder"
    buckets = T5Attention._relative_position_bucket(
        positions[None] - positions[:, None],
        bidirectional=not decoder,
        num_buckets=config.relative_attention_num_buckets,
        max_distance=config.relative_attention_max_distance,
    )
    table = weights[f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    bias = F.embedding(buckets, table).permute(2, 0, 1)
    return bias.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf) if decoder else bias


def stack(weights, side: str, config, x: Tensor, source: Tensor | None = None) -> Tensor:
    """The final states [T, D] of encoder or decoder for embeddings x [T, D]. source: the encoder's final states."""
    bias = position_bias(weights, side, config, len(x))
    for block in range(config.num_layers):
        at = f"{side}.block.{block}.layer"
        y = norm(weights, f"{at}.0.layer_norm", x)
        x = x + attention(weights, f"{at}.0.SelfAttention", config, y, y, bias)
        if source is not None:
            y = norm(weights, f"{at}.1.layer_norm", x)
            x = x + attention(weights, f"{at}.1.EncDecAttention", config, y, source, torch.zeros(1, 1, 1))
        last = f"{at}.{1 if source is None else 2}"
        y = norm(weights, f"{last}.layer_norm", x)
        x = x + linear(weights, f"{last}.DenseReluDense.wo", linear(weights, f"{last}.DenseReluDense.wi", y).relu())
    return norm(weights, f"{side}.final_layer_norm", x)


def plain_t5_loss(
    weights: dict[str, Tensor], config, source_ids: tuple[int, ...], target_ids: tuple[int, ...]
) -> Tensor:
    """The summed loss of one row's target tokens."""
    table, targets = weights["shared.weight"], torch.tensor(target_ids)
    encoded = stack(weights, "encoder", config, table[torch.tensor(source_ids)])
    decoded = stack(weights, "decoder", config, table[torch.tensor([0, *target_ids[:-1]])], encoded)
    logits = linear({"lm_head.weight": table, **weights}, "lm_head", decoded * config.d_model**-0.5)
    return F.cross_entropy(logits, targets, reduction="sum")
