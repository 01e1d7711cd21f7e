"""Several runs on one frozen model: their batches joined, their embeddings side by side."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adept.base import distributed
from adept.config.run import METHOD_OPTIONS, RunConfig
from adept.data.example import IGNORED
from adept.methods.embedding import PromptedEmbedding
from adept.models.families import input_embedding_owner
from adept.models.likelihood import source_tokens
from adept.training.session import Session


def join_batches(batches: Sequence[dict[str, Tensor]], prefixes: Sequence[int]) -> dict[str, Tensor]:
    """Joins one batch of each run into one batch of equal blocks of rows, padded to the widest.

    batches: Batch.inputs. prefixes: the length of each batch's shared prompt. Shorter prompts are padded on the left,
    so that all end in the same column, and "position_ids" then say where a row begins. Where a batch has fewer rows
    than another, its last row is repeated without labels.
    """
    if len(batches) == 1:
        return batches[0]
    rows = max(len(batch["input_ids"]) for batch in batches)
    lead = [max(prefixes) - prefix for prefix in prefixes]
    width = max(left + batch["input_ids"].shape[1] for left, batch in zip(lead, batches, strict=True))
    whole = {
        name: torch.cat([pad_block(batch[name], rows, left, width) for left, batch in zip(lead, batches, strict=True)])
        for name in ("input_ids", "attention_mask")
    }
    whole["targets"] = torch.cat([batch["targets"] for batch in batches])
    if any(lead):
        whole["position_ids"] = (whole["attention_mask"].cumsum(1) - 1).clamp(min=0)
    if "logits_to_keep" in batches[0]:
        kept = [batch["logits_to_keep"] + left for left, batch in zip(lead, batches, strict=True)]
        whole["logits_to_keep"] = torch.cat(kept).unique()
        columns = [torch.searchsorted(whole["logits_to_keep"], own) for own in kept]
        count = len(whole["logits_to_keep"])
    else:
        columns = [torch.arange(batch["labels"].shape[1]) for batch in batches]
        count = max(batch["labels"].shape[1] for batch in batches)
    labels = torch.full((len(batches), rows, count), IGNORED)
    for part, column, batch in zip(labels, columns, batches, strict=True):
        part[: len(batch["labels"]), column] = batch["labels"]
    whole["labels"] = labels.flatten(0, 1)
    return whole


def pad_block(tensor: Tensor, rows: int, left: int, width: int) -> Tensor:
    """[B, T] -> [rows, width]: zeros around the columns, the last row repeated."""
    padded = F.pad(tensor, (left, width - left - tensor.shape[1]))
    return torch.cat([padded, padded[-1:].expand(rows - len(padded), -1)])


OWN_OPTIONS = {
    "method",
    "seed",
    "init_from",
    "steps",
    "accumulate",
    "schedule",
    "warmup_steps",
    "adamw",
    "weight_decay",
    "beta1",
    "beta2",
    "eps",
    "max_grad_norm",
}
"""Options in which stacked runs may differ, besides those that only methods have."""


def stack_key(config: RunConfig) -> tuple | None:
    """Runs of equal keys can be stacked: they agree in model, data, batches and arithmetic.

    None for a run that must be trained alone.
    """
    if not config.method_options.stacks or not config.steps:
        return None
    differing = OWN_OPTIONS | METHOD_OPTIONS
    return tuple(sorted((name, value) for name, value in config.flat().items() if name not in differing))


class StackedEmbedding(nn.Module):
    """The input embeddings of several runs: each row of a batch passes through its own run's.

    A run's rows are a block. Outside blocks_of() every run has one, and all are equally large.
    """

    def __init__(self, hooks: Sequence[nn.Module]):
        """hooks: a PromptedEmbedding a run, or the bare embedding of a run that has none."""
        super().__init__()
        self.hooks = nn.ModuleList(hooks)
        self.blocks = [(number, 1) for number in range(len(hooks))]

    @property
    def weight(self) -> Tensor:
        """The frozen table, as transformers asks for it."""
        return self.hooks[0].weight

    def forward(self, ids: Tensor) -> Tensor:
        """ids [k * B, T], with the prompt ids of each row's own run -> embeddings [k * B, T, D].

        B is the number of rows of all blocks. Beams and label candidates repeat each row k times, side by side.
        """
        repeats = len(ids) // sum(rows for _, rows in self.blocks)
        parts = ids.split([repeats * rows for _, rows in self.blocks])
        return torch.cat([self.hooks[number](part) for (number, _), part in zip(self.blocks, parts, strict=True)])

    @contextlib.contextmanager
    def blocks_of(self, rows: Sequence[int]) -> Iterator[None]:
        """Inside, the batch's rows belong to the runs of these numbers, of which equal ones stand side by side."""
        before, self.blocks = self.blocks, [(number, len([*same])) for number, same in itertools.groupby(rows)]
        try:
            yield
        finally:
            self.blocks = before


class Stack:
    """Runs whose batches are computed together. Their sessions share one model's weights.

    A single run is a stack of one.
    """

    def __init__(self, sessions: Sequence[Session]):
        self.sessions = tuple(sessions)
        first = self.sessions[0]
        self.device, self.prefix = first.device, max(session.shared_prefix for session in self.sessions)
        self.hooks = [
            m for session in self.sessions for m in session.model.modules() if isinstance(m, PromptedEmbedding)
        ]
        if len(self.sessions) > 1:
            if any(hook.depends_on_row for hook in self.hooks):
                raise ValueError("a prompt that depends on the row cannot be stacked: it would miss its rows' mask")
            self.owner, self.embedding = input_embedding_owner(first.model), StackedEmbedding(self.hooks)

    def losses(self, batches: Sequence[dict[str, Tensor]]) -> Tensor:
        """One batch of each run, on the host -> [R], each run's mean loss over its target tokens."""
        first = self.sessions[0]
        batch = join_batches(batches, [session.shared_prefix for session in self.sessions])
        if self.device.type == "cuda":
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        try:
            for hook in self.hooks:
                if hook.depends_on_row:
                    hook.is_source = source_tokens(batch, batch["labels"])
            with self.joined_embedding(), first.autocast():
                losses = first.batch_losses(first.model, batch, self.prefix, len(self.sessions))
                # Outside of what is compiled. Each process adds its share, as of the loss itself.
                if not first.method.stacks and (extra := first.method.extra_loss(first.model)) is not None:
                    losses = losses + extra / distributed.WORLD
                return losses
        finally:
            for hook in self.hooks:
                hook.forget()

    @contextlib.contextmanager
    def joined_embedding(self) -> Iterator[None]:
        """Inside, the first run's model has the embeddings of all runs."""
        if len(self.sessions) == 1:
            yield
            return
        single = self.owner.get_input_embeddings()
        self.owner.set_input_embeddings(self.embedding)
        try:
            yield
        finally:
            self.owner.set_input_embeddings(single)
