"""The memory of a training step, counted on the meta device: sizes of tensors, without weights and arithmetic.

This is a count, not a measurement. It knows each tensor that a step makes and when the tensor is freed, but not the
scratch memory of kernels, the gaps of the allocator and CUDA's context (together some 5 GB). Attention, dropout and
the types under autocast are counted as a GPU's kernels have them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
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

from adept.bench.synthetic import DigitTokenizer
from adept.config.layers import resolve
from adept.config.run import RunConfig
from adept.data.batches import make_batch
from adept.data.example import Example
from adept.models.loading import patch_attention_and_dropout, random_model
from adept.models.recompute import transformer_blocks
from adept.training.session import open_session_on
from adept.training.stack import Stack

COUNTED_MODELS = (
    ("t5-base", "rte"),
    ("t5-base", "nq"),
    ("t5-3b", "nq"),
    ("codegen-350m", "mbpp"),
    ("llama3-8b", "mbpp"),
)
"""(model, task) whose longest step is counted: 256 and 512 source tokens, and MBPP's 581 of source and target."""
COUNTED_ROWS = 32
GPU_BYTES = 80 * 10**9

# A GPU's kernels on the meta device -----------------------------------------------------------------------------------

AUTOCAST_TYPES = dict.fromkeys(
    (F.layer_norm, F.softmax, F.log_softmax, F.cross_entropy, torch.softmax, torch.log_softmax, torch.pow, torch.rsqrt,
     Tensor.softmax, Tensor.log_softmax, Tensor.pow, Tensor.__pow__, Tensor.rsqrt),
    torch.float32,
) | dict.fromkeys(
    (F.linear, torch.matmul, torch.bmm, torch.baddbmm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm,
     F.scaled_dot_product_attention),
    torch.bfloat16,
)  # fmt: skip
"""The type to which autocast on a GPU converts the inputs of the functions that these models call."""


class GpuEmulation(TorchFunctionMode):
    """Emulates a GPU on the meta device: the tensors that its kernels keep for the backward pass, and autocast."""

    def __init__(self):
        super().__init__()
        self.autocasts = [False]  # whether autocast is on, innermost context last

    @contextlib.contextmanager
    def autocast(self, device_type: str, dtype: torch.dtype | None = None, enabled: bool = True) -> Iterator[None]:
        """Takes the place of torch.autocast."""
        self.autocasts.append(enabled)
        try:
            yield
        finally:
            self.autocasts.pop()

    def wrap_blocks(self, model: nn.Module) -> None:
        """Makes each block of the model enter this mode, in place.

        backward(), which runs checkpointed blocks again, turns function modes off.
        """

        def run(forward: Callable, *args, **kwargs):
            with self:
                return forward(*args, **kwargs)

        for block in transformer_blocks(model):
            block.forward = functools.partial(run, block.forward)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is Tensor.__bool__:  # transformers drops masks that mask nothing; the masks of a real batch do mask
            return False
        if self.autocasts[-1] and (dtype := AUTOCAST_TYPES.get(func)):
            args, kwargs = tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, (args, kwargs))
        if func is F.scaled_dot_product_attention:
            return efficient_attention(*args, **kwargs)
        if func is F.dropout:
            return fused_dropout(*args, **kwargs)
        return func(*args, **kwargs)


def fused_dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout that keeps a mask of one byte per element."""
    return torch.native_dropout(x, p, True)[0] if training and p else x


def efficient_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
) -> Tensor:
    """Memory-efficient attention: keeps its inputs, its output and one number per query, but no attention weights."""
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    if attn_mask is not None:
        boolean = attn_mask.dtype == torch.bool
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype) if boolean else attn_mask.to(query.dtype)
        attn_mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])
    # The kernel's output has the layout [B, T, H, d].
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    return kernel(query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale)[0]


# Counting -------------------------------------------------------------------------------------------------------------


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of live tensors that were made inside the context: `now`, and `peak`, the most at any time."""

    def __init__(self, excluded: set[int]):
        """excluded: storages that are not counted."""
        super().__init__()
        self.known, self.now, self.peak = set(excluded), 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self.known:
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _remove(self, storage: int, size: int) -> None:
        self.known.discard(storage)
        self.now -= size


def storage_sizes(model: nn.Module) -> dict[int, int]:
    """{storage: its bytes} of all parameters and buffers."""
    storages = (tensor.untyped_storage() for tensor in [*model.parameters(), *model.buffers()])
    return {storage._cdata: storage.nbytes() for storage in storages}


@dataclass
class StepMemory:
    """Bytes that a training step needs."""

    weights: int  # parameters and buffers
    optimizer: int  # AdamW's moments
    saved: int  # tensors that the forward pass keeps for the backward pass, without the weights
    peak: int  # all tensors that are alive at the step's worst moment, without weights and moments

    @property
    def total(self) -> int:
        return self.weights + self.optimizer + self.peak


def count_step(model: nn.Module, loss: Callable[[], Tensor]) -> StepMemory:
    """Counts the memory of loss() and its backward pass, on any device. The gradients stay on the parameters."""
    weights = storage_sizes(model)
    saved: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage())._cdata not in weights:
            saved[storage._cdata] = storage.nbytes()
        return tensor.detach()  # not the tensor itself: a node that holds its own output would never be freed

    with LiveMemory(set(weights)) as live:
        with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            value = loss()
        saved_bytes = sum(saved.values())
        value.backward()
    moments = sum(8 * p.numel() for p in model.parameters() if p.requires_grad)
    return StepMemory(sum(weights.values()), moments, saved_bytes, live.peak)


def count_run(config: RunConfig, tokenizer: object) -> tuple[StepMemory, int]:
    """Counts a training step of config.batch_size rows of the greatest length.

    config.model: a name of SHAPES (adept/models/families.py).
    Returns (the step's memory, the bytes of its logits in fp32).
    """
    gpu, model = GpuEmulation(), patch_attention_and_dropout(random_model(config.model, "meta"))
    gpu.wrap_blocks(model)
    session = open_session_on(config, model, tokenizer, torch.device("meta"))
    session.model.train()
    codec, stack = session.codec, Stack([session])
    longest = Example("", "", "", (), source_ids=(1,) * codec.max_source_len, target_ids=(1,) * codec.max_target_len)
    inputs = make_batch(codec, [longest] * config.batch_size).inputs
    # Autocast encloses the backward pass too, in which checkpointed blocks run again.
    with gpu, mock.patch.object(torch, "autocast", gpu.autocast), session.autocast():
        memory = count_step(session.model, lambda: stack.losses([inputs]).sum())
    return memory, 4 * inputs["labels"].numel() * session.model.config.vocab_size


def largest_batch(config: RunConfig, tokenizer: object, room: int) -> int:
    """The largest batch_size whose training step needs at most `room` bytes; 0 if one row needs more."""

    def total(rows: int) -> int:
        return count_run(config.replace(batch_size=rows), tokenizer)[0].total

    low, high = 8, 16
    total_low, total_high = total(low), total(high)
    # The total is nearly linear in the rows: extrapolate, then correct one row at a time.
    rows = max(1, low + int((room - total_low) * (high - low) / (total_high - total_low)))
    while rows and total(rows) > room:
        rows -= 1
    while total(rows + 1) <= room:
        rows += 1
    return rows


def count_models_memory(name: str, task: str) -> Iterator[dict]:
    """Yields the rows of the result for a step of ADePT: fp32 and bf16, with and without checkpointed activations."""
    for precision, checkpointed in itertools.product(("fp32", "bf16"), (False, True)):
        fields = {"batch_size": COUNTED_ROWS, "grad_accum": 1, "precision": precision, "allow_code_execution": True}
        config = resolve(
            {"task": task, "model": name, "method": "adept", "checkpoint_activations": checkpointed, **fields}
        )
        memory, logits = count_run(config, DigitTokenizer())
        yield {
            "model": name,
            "task": task,
            "precision": precision,
            "checkpointed": checkpointed,
            "rows": COUNTED_ROWS,
            **{f"{field}_bytes": value for field, value in dataclasses.asdict(memory).items()},
            "logits_bytes": logits,
            "total_bytes": memory.total,
            "largest_batch": largest_batch(config, DigitTokenizer(), GPU_BYTES),
        }
