"""A run's trained parameters before its first step: those of another run, and what the method makes of them."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from adept.base import distributed
from adept.base.console import progress_bar
from adept.data.batches import training_batches
from adept.data.example import Example
from adept.runs.adapter import find_adapter, require_same_base, require_same_seed, restore_adapter
from adept.training.losses import batch_losses
from adept.training.session import Session
from adept.training.stack import Stack


def start_parameters(session: Session, examples: Sequence[Example]) -> None:
    """Gives the trained parameters their values at the start. examples: the encoded training rows.

    Raises UserError where the adapter of --init_from does not fit.
    """
    config = session.config
    if config.init_from is not None:
        folder = find_adapter(config.init_from, config.results_dir)
        require_same_base(folder, config.model, session.base_weights)
        restore_adapter(session.model, folder, session.method.adopt)
        require_same_seed(folder, config)
    session.method.before_training(session.model, partial(batch_gradients, session, examples))


def batch_gradients(
    session: Session,
    examples: Sequence[Example],
    parameters: Sequence[Tensor],
    *,
    batch_size: int | None = None,
    most: int | None = None,
) -> Iterator[list[Tensor]]:
    """A method's GradientsOf (adept/methods/method.py). The model is left in evaluation mode.

    Several processes share each batch's rows and get the gradients of the whole batch.
    """
    session.model.eval()
    config = session.config if batch_size is None else session.config.replace(batch_size=batch_size)
    # Not compiled: there may be a batch for each length, and few of each.
    stack = Stack([dataclasses.replace(session, batch_losses=batch_losses)])
    count = math.ceil(min(len(examples), most or len(examples)) / config.batch_size)
    with (
        contextlib.closing(training_batches(session.codec, examples, config)) as batches,
        contextlib.closing(
            progress_bar(count, "batch", f"{config.task} {config.method}, before its first step")
        ) as bar,
    ):
        for batch in itertools.islice(batches, count):
            with session.precision():
                gradients = list(torch.autograd.grad(stack.losses([batch.inputs]).sum(), parameters))
            distributed.all_reduce_sum(gradients)
            yield gradients
            bar.update()
