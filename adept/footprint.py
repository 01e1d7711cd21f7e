"""The memory of a training step, counted on the meta device: no weights, no arithmetic, every tensor's size.

A count and no measurement: it knows each tensor that a step makes and when it dies, but not a kernel's own scratch, the allocator's gaps or
the context of CUDA (together some 5 GB). Attention, dropout and the types under autocast are counted as a GPU's kernels have them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from adept import loop, models, recompute
from adept.config import RunConfig
from adept.data import Example
from adept.step import Stack, make_batch

TYPES = dict.fromkeys(
    (F.layer_norm, F.softmax, F.log_softmax, F.cross_entropy, torch.softmax, torch.log_softmax, torch.pow, torch.rsqrt,
     Tensor.softmax, Tensor.log_softmax, Tensor.pow, Tensor.__pow__, Tensor.rsqrt),
    torch.float32,
) | dict.fromkeys(
    (F.linear, torch.matmul, torch.bmm, torch.baddbmm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm, F.scaled_dot_product_attention),
    torch.bfloat16,
)  # fmt: skip
"""What autocast makes of the inputs of the functions that these models call, on a GPU."""


class AsOnGpu(TorchFunctionMode):
    """Runs a model's functions on the meta device as a GPU would: its kernels' choice of what to keep, and autocast, which meta lacks."""

    def __init__(self):
        super().__init__()
        self.autocasts = [False]  # innermost last

    @contextlib.contextmanager
    def autocast(self, device_type: str, dtype: torch.dtype | None = None, enabled: bool = True) -> Iterator[None]:
        self.autocasts.append(enabled)
        try:
            yield
        finally:
            self.autocasts.pop()

    def enter_blocks(self, model: nn.Module) -> None:
        """Function modes are off within backward(), where checkpointed blocks run again, so each block turns this one on."""

        def run(forward: Callable, *args, **kwargs):
            with self:
                return forward(*args, **kwargs)

        for block in recompute.blocks(model):
            block.forward = functools.partial(run, block.forward)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is Tensor.__bool__:  # transformers leaves masks out that hide nothing: these hide something
            return False
        if self.autocasts[-1] and (dtype := TYPES.get(func)):
            args, kwargs = tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, (args, kwargs))
        if func is F.scaled_dot_product_attention:
            return attention(*args, **kwargs)
        if func is F.dropout:
            return dropout(*args, **kwargs)
        return func(*args, **kwargs)


def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """The fused one: it keeps a byte an element."""
    return torch.native_dropout(x, p, True)[0] if training and p else x


def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """The memory-efficient one: it keeps its inputs, its output and a number a query, not the weights."""
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    if attn_mask is not None:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype) if attn_mask.dtype == torch.bool else attn_mask.to(query.dtype)
        attn_mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])
    # Its layout is [B, T, H, d].
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale)[0]


class Live(TorchDispatchMode):
    """Bytes of the tensors that are alive and were made under it, now and at most."""

    def __init__(self, known: set[int]):
        """known: storages that are not counted."""
        super().__init__()
        self.known, self.now, self.peak = set(known), 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self.known:
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.forget, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def forget(self, storage: int, size: int) -> None:
        self.known.discard(storage)
        self.now -= size


def storages(model: nn.Module) -> dict[int, int]:
    """{storage: its bytes} of parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}


@dataclass
class Count:
    """Bytes."""

    weights: int  # parameters and buffers
    optimizer: int  # AdamW's moments
    saved: int  # tensors that the forward pass keeps for the backward pass, weights apart
    peak: int  # all that is alive at the step's worst moment, weights and moments apart

    @property
    def total(self) -> int:
        return self.weights + self.optimizer + self.peak


def count_step(model: nn.Module, loss: Callable[[], Tensor]) -> Count:
    """Of loss() and its backward pass, on whatever device they are. Leaves gradients behind."""
    weights = storages(model)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage())._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor.detach()  # not itself: a node that holds its own output would live too long

    with Live(set(weights)) as live:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            value = loss()
        saved = sum(kept.values())
        value.backward()
    moments = sum(8 * p.numel() for p in model.parameters() if p.requires_grad)
    return Count(sum(weights.values()), moments, saved, live.peak)


def count_run(config: RunConfig, tokenizer: object) -> tuple[Count, int]:
    """(what a step of batch_size rows of the longest kind needs, the bytes of its logits in fp32) for a model of SHAPES."""
    gpu, model = AsOnGpu(), models.spare(models.random_model(config.model, "meta"))
    gpu.enter_blocks(model)
    session = loop.adapt(config, model, tokenizer, torch.device("meta"))
    session.model.train()
    codec, stack = session.codec, Stack([session])
    row = Example("", "", "", (), source_ids=(1,) * codec.max_source_len, target_ids=(1,) * codec.max_target_len)
    inputs = make_batch(codec, [row] * config.batch_size).inputs
    with gpu, mock.patch.object(torch, "autocast", gpu.autocast), session.autocast():  # also where backward() runs blocks again
        count = count_step(session.model, lambda: stack.losses([inputs]).sum())
    return count, 4 * inputs["labels"].numel() * session.model.config.vocab_size


def largest_batch(config: RunConfig, tokenizer: object, room: int) -> int:
    """The largest batch_size whose step needs at most `room` bytes; 0 where one row is too much."""

    def total(rows: int) -> int:
        return count_run(dataclasses.replace(config, batch_size=rows), tokenizer)[0].total

    low, high = 8, 16
    fewer, more = total(low), total(high)
    rows = max(1, low + int((room - fewer) * (high - low) / (more - fewer)))  # a line, nearly
    while rows and total(rows) > room:
        rows -= 1
    while total(rows + 1) <= room:
        rows += 1
    return rows
