"""The order of training rows, and batches made of them."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from adept.base import distributed
from adept.config.run import RunConfig
from adept.data.codec import Codec
from adept.data.example import IGNORED, Example


def batch_indices(
    lengths: Sequence[int], batch_size: int, seed: int, *, group_by_length: bool, skip: int = 0
) -> Iterator[list[int]]:
    """Endless batches of row numbers. Every epoch visits each row once.

    The order depends on (seed, epoch) alone. group_by_length: a shuffled stretch of 50 batches is sorted by length, cut
    into batches, and the batches are shuffled. A last batch may be smaller. skip: the first batches to leave out; whole
    epochs of them cost nothing.
    """
    first, skip = divmod(skip, -(-len(lengths) // batch_size))
    for epoch in itertools.count(first):
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        order = torch.randperm(len(lengths), generator=generator).tolist()
        if group_by_length:
            stretch = 50 * batch_size
            order = [
                i
                for k in range(0, len(order), stretch)
                for i in sorted(order[k : k + stretch], key=lambda i: lengths[i])
            ]
        batches = [order[k : k + batch_size] for k in range(0, len(order), batch_size)]
        if group_by_length:
            batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
        yield from batches[skip:]
        skip = 0


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass, on the host.

    inputs: the codec's train_batch, of which this process has its share of rows, with "targets" [1], the number of all
    target tokens. ids, tokens: of all rows; tokens that are no padding.
    """

    inputs: dict[str, Tensor]
    ids: tuple[str, ...]
    tokens: int


def make_batch(codec: Codec, examples: Sequence[Example]) -> Batch:
    """The codec's training batch of those rows; of several processes each makes its own share."""
    targets = torch.tensor([float(sum(len(e.target_ids) for e in examples))])
    inputs = codec.train_batch(examples)
    shared = distributed.shard_batch(inputs, {"labels": IGNORED, "shift_labels": IGNORED})
    return Batch({**shared, "targets": targets}, tuple(e.id for e in examples), int(inputs["attention_mask"].sum()))


def prefetch(make: Callable, items: Iterable, count: int) -> Iterator:
    """make(item) of each item, `count` of them made ahead of time in a thread."""
    items = iter(items)
    with ThreadPoolExecutor(1) as pool:
        waiting = collections.deque(pool.submit(make, item) for item in itertools.islice(items, count))
        for item in items:
            waiting.append(pool.submit(make, item))
            yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def training_batches(codec: Codec, examples: Sequence[Example], config: RunConfig, skip: int = 0) -> Iterator[Batch]:
    """Endless batches of a run, from batch number `skip` on, made while the device works on those before."""
    lengths = [example.length for example in examples]
    order = batch_indices(lengths, config.batch_size, config.seed, group_by_length=config.group_by_length, skip=skip)
    return prefetch(lambda rows: make_batch(codec, [examples[i] for i in rows]), order, 2)
