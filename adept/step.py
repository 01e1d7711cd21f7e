"""One optimizer step: of a run, or of several runs stacked on one frozen model.

The batches of stacked runs pass through the model together, each row with its own run's prompt and offset. Nothing that is trained is
shared, so the gradient of the sum of the runs' losses is each run's own gradient: stacked runs are separate runs up to the order of
summation. Dropout inside the model is the exception: a stacked run draws other masks than it would alone.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adept import parallel
from adept.config import FIELDS, RunConfig
from adept.data import IGNORED, Codec, Example
from adept.embedding import PromptedEmbedding
from adept.methods import METHODS, method_specific_fields
from adept.models import input_embedding_owner
from adept.optim import set_rates
from adept.recompute import behind_prompt, prompt_cache

if TYPE_CHECKING:
    from adept.loop import Session

# Batches ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass, on the host.

    inputs: the codec's train_batch, of which this process has its share of rows, with "targets" [1], the number of all target tokens.
    ids, tokens: of all rows; tokens that are no padding.
    """

    inputs: dict[str, Tensor]
    ids: tuple[str, ...]
    tokens: int


def make_batch(codec: Codec, examples: Sequence[Example]) -> Batch:
    """The codec's training batch of those rows; of several processes each makes its own share."""
    targets = torch.tensor([float(sum(len(e.target_ids) for e in examples))])
    inputs = codec.train_batch(examples)
    shared = parallel.share_rows(inputs, {"labels": IGNORED, "shift_labels": IGNORED})
    return Batch({**shared, "targets": targets}, tuple(e.id for e in examples), int(inputs["attention_mask"].sum()))


def joined(batches: Sequence[dict[str, Tensor]], prefixes: Sequence[int]) -> dict[str, Tensor]:
    """Batches of the codec's, with "targets" [1] each -> one, of equal blocks of rows, padded to the widest.

    prefixes: tokens of each batch's shared prompt. Shorter ones are padded on the left, so that all end in one column; "position_ids" then
    say where a row begins. A batch with fewer rows than another repeats its last one without labels.
    """
    if len(batches) == 1:
        return batches[0]
    rows = max(len(batch["input_ids"]) for batch in batches)
    lead = [max(prefixes) - prefix for prefix in prefixes]
    width = max(left + batch["input_ids"].shape[1] for left, batch in zip(lead, batches, strict=True))
    whole = {
        name: torch.cat([block(batch[name], rows, left, width) for left, batch in zip(lead, batches, strict=True)])
        for name in ("input_ids", "attention_mask")
    }
    whole["targets"] = torch.cat([batch["targets"] for batch in batches])
    if any(lead):
        whole["position_ids"] = (whole["attention_mask"].cumsum(1) - 1).clamp(min=0)
    if "logits_to_keep" in batches[0]:
        places = [batch["logits_to_keep"] + left for left, batch in zip(lead, batches, strict=True)]
        whole["logits_to_keep"] = torch.cat(places).unique()
        columns, count = [torch.searchsorted(whole["logits_to_keep"], place) for place in places], len(whole["logits_to_keep"])
    else:
        columns, count = [torch.arange(batch["labels"].shape[1]) for batch in batches], max(b["labels"].shape[1] for b in batches)
    labels = torch.full((len(batches), rows, count), IGNORED)
    for part, column, batch in zip(labels, columns, batches, strict=True):
        part[: len(batch["labels"]), column] = batch["labels"]
    whole["labels"] = labels.flatten(0, 1)
    return whole


def block(tensor: Tensor, rows: int, left: int, width: int) -> Tensor:
    """[B, T] -> [rows, width]: zeros around the columns, the last row repeated."""
    padded = F.pad(tensor, (left, width - left - tensor.shape[1]))
    return torch.cat([padded, padded[-1:].expand(rows - len(padded), -1)])


# Losses -----------------------------------------------------------------------------------------------------------------


def batch_losses(model: nn.Module, batch: dict[str, Tensor], prefix: int, runs: int) -> Tensor:
    """[runs]: the mean loss over the target tokens of each run's rows, which are equal blocks of the batch, one after the other.

    The first `prefix` tokens of a causal model's rows are the prompt, the same in each row of a run and blind to what follows, so their
    keys and values are computed once; the model's own dropout there is one draw for all of a run's rows.
    """
    batch = {name: tensor for name, tensor in batch.items() if name != "shift_labels"}
    targets, labels, rows = batch.pop("targets"), batch.pop("labels"), len(batch["input_ids"]) // runs
    if "logits_to_keep" not in batch:
        batch["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels)
    if prefix:
        prompts = {name: batch[name][::rows, :prefix] for name in ("input_ids", "position_ids") if name in batch}
        if "position_ids" in batch:  # prompts of several lengths
            prompts["attention_mask"] = batch["attention_mask"][::rows, :prefix]
            batch["position_ids"] = batch["position_ids"][:, prefix:]
        keys = prompt_cache()
        model(**prompts, past_key_values=keys, use_cache=True, logits_to_keep=batch["logits_to_keep"].new_zeros(1))
        batch |= {"input_ids": batch["input_ids"][:, prefix:], "logits_to_keep": batch["logits_to_keep"] - prefix}
        batch["past_key_values"] = behind_prompt(keys, rows)
    logits = model(**batch, use_cache=bool(prefix)).logits  # [B, L, V]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)
    losses = F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="none")
    return losses.view(runs, -1).sum(1) / targets


def compiled(config: RunConfig, device: torch.device) -> Callable:
    """batch_losses through torch.compile, on a GPU in CUDA graphs: one for each shape, so that a step is not bound by its launches."""
    graphs = device.type == "cuda" and config.grad_accum == 1  # summed gradients would lie in memory that the next replay overwrites
    return torch.compile(batch_losses, mode="reduce-overhead" if graphs else None)


# Stacks -----------------------------------------------------------------------------------------------------------------


OWN = {"method", "seed", "init_from", "steps", "schedule", "warmup_steps", "weight_decay", "beta1", "beta2", "eps", "max_grad_norm"}
"""Fields in which stacked runs may differ, besides those that only methods read."""


def stack_key(config: RunConfig) -> tuple | None:
    """Runs of equal keys can be stacked: they agree in model, data, batches and arithmetic. None: the run is to be alone."""
    if not METHODS[config.method].stacks or not config.steps:
        return None
    own = OWN | method_specific_fields()
    return tuple(getattr(config, name) for name in FIELDS if name not in own)


class StackedEmbedding(nn.Module):
    """The input embeddings of several runs: equal blocks of rows, one a run, pass through one each."""

    def __init__(self, hooks: Sequence[PromptedEmbedding]):
        super().__init__()
        self.hooks = nn.ModuleList(hooks)

    @property
    def weight(self) -> Tensor:
        """The frozen table, as transformers asks for it."""
        return self.hooks[0].weight

    def forward(self, ids: Tensor) -> Tensor:
        """ids [R * B, T], the prompt's ids being those of the row's run -> embeddings [R * B, T, D]."""
        return torch.cat([hook(block) for hook, block in zip(self.hooks, ids.chunk(len(self.hooks)), strict=True)])


class Stack:
    """Runs whose batches are computed together: sessions on light copies of one model. A single run is a stack of one."""

    def __init__(self, sessions: Sequence[Session]):
        self.sessions = tuple(sessions)
        first = self.sessions[0]
        self.device, self.prefix = first.device, max(session.shared_prefix for session in self.sessions)
        self.hooks = [m for session in self.sessions for m in session.model.modules() if isinstance(m, PromptedEmbedding)]
        if len(self.sessions) > 1:
            self.owner, self.embedding = input_embedding_owner(first.model), StackedEmbedding(self.hooks)

    def losses(self, batches: Sequence[dict[str, Tensor]]) -> Tensor:
        """One batch of each run, on the host -> [R], the mean loss over each run's target tokens."""
        first = self.sessions[0]
        batch = joined(batches, [session.shared_prefix for session in self.sessions])
        if self.device.type == "cuda":
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        with self.together(), first.autocast():
            losses = first.batch_losses(first.model, batch, self.prefix, len(self.sessions))
        for hook in self.hooks:
            hook.forget()
        return losses

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """All runs' embeddings in the first one's model."""
        if len(self.sessions) == 1:
            yield
            return
        alone = self.owner.get_input_embeddings()
        self.owner.set_input_embeddings(self.embedding)
        try:
            yield
        finally:
            self.owner.set_input_embeddings(alone)


# Steps ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """The optimizer step that a run wants next: its grad_accum batches, and the schedule's multiplier of its rates."""

    session: Session
    optimizer: torch.optim.Optimizer
    batches: tuple[Batch, ...]
    multiplier: float


@dataclass(frozen=True)
class Step:
    """What a run's optimizer step came to."""

    loss: Tensor  # the mean of its batches', on the device: reading it would stall a GPU
    seconds: float  # the run's share
    runs: int  # that were computed together


def next_work(session: Session, optimizer: torch.optim.Optimizer, batches: Iterator[Batch], multiplier: float) -> Work:
    """The optimizer step on the next --grad_accum of `batches`."""
    return Work(session, optimizer, tuple(itertools.islice(batches, session.config.grad_accum)), multiplier)


def trained(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """What the optimizer updates, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def train_step(works: Sequence[Work], stack: Stack | None = None) -> list[Step]:
    """One optimizer step of each run, in forward passes of all together. stack: the runs' own, where it is at hand.

    The runs must agree in grad_accum, precision and what else the model's arithmetic depends on.
    """
    started = time.perf_counter()
    stack = stack or Stack([work.session for work in works])
    accumulated = len(works[0].batches)
    total = torch.zeros(len(works), device=stack.device)
    for parts in zip(*(work.batches for work in works), strict=True):
        losses = stack.losses([part.inputs for part in parts]) / accumulated
        losses.sum().backward()
        total = total + losses.detach()
    parallel.add([total, *(p.grad for work in works for p in trained(work.optimizer) if p.grad is not None)])
    for work in works:
        set_rates(work.optimizer, work.multiplier)
        if norm := work.session.config.max_grad_norm:
            nn.utils.clip_grad_norm_(trained(work.optimizer), norm)
        work.optimizer.step()
        work.optimizer.zero_grad(set_to_none=True)
    share = (time.perf_counter() - started) / len(works)
    return [Step(loss, share, len(works)) for loss in total]
