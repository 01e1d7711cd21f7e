"""One run in several processes: torchrun --nproc_per_node 2 train.py ...

Each process has the frozen model, or with --shard_model its part of the blocks, and takes its share of every batch's
rows. Losses are divided by the target tokens of the whole batch, which all processes know, so their sum is the loss of
the whole batch, and the sum of the gradients its gradient: some 300 KB, which one all-reduce a step adds up. Clipping
and AdamW then do the same everywhere. The first process alone claims the run, writes and prints. Dropout inside the
model draws other masks in each process.

Without torchrun there is one process, the first, and nothing here does anything.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from adept.base.errors import UserError, first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

RANK, WORLD = 0, 1
"""This process's number and how many there are; initialize() sets them."""

STORE: Any = None
"""torch's key-value store, which outlives each of the processes."""

SEED_STRIDE = 1_000_003
PATIENCE = datetime.timedelta(hours=6)
"""A process waits so long for the others: torchrun ends all when one dies."""

T = TypeVar("T")


def started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def initialize() -> None:
    """Joins the processes that torchrun started; alone, nothing. Raises UserError where there are fewer GPUs than
    processes.
    """
    global RANK, WORLD, STORE
    if not started_by_torchrun():
        return
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if torch.cuda.is_available():
        backend, number, gpus = "cpu:gloo,cuda:nccl", int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= gpus:
            raise UserError(f"torchrun started more processes than there are GPUs: --nproc_per_node {gpus}")
        torch.cuda.set_device(number)  # what "cuda" means from now on
    STORE, rank, world = next(dist.rendezvous("env://"))
    dist.init_process_group(backend, store=STORE, rank=rank, world_size=world, timeout=PATIENCE)
    RANK, WORLD = rank, world


def shutdown(code: int) -> NoReturn:
    """The end of the process. When all is well, that of all processes."""
    if WORLD > 1:
        import torch.distributed as dist

        if code == 0:
            dist.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit(): a thread of gloo's that still frees a tensor aborts an interpreter that is closing down, and
        # NCCL's destructors wait for processes that are gone.
        os._exit(code)
    sys.exit(code)


# Work shared out ------------------------------------------------------------------------------------------------------


def on_main_process(make: Callable[[], T]) -> T:
    """make() of the first process, for all; what it raises there is raised in all."""
    if WORLD == 1:
        return make()
    import torch
    import torch.distributed as dist

    outcome: list = [call_or_catch(make) if RANK == 0 else None]
    with report_lost_process():
        dist.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
    return value_or_raise(outcome[0])


def gather_objects(make: Callable[[], T]) -> list[T]:
    """make() of every process, for all; what it raises in one is raised in all."""
    if WORLD == 1:
        return [make()]
    import torch.distributed as dist

    outcomes: list = [None] * WORLD
    mine = call_or_catch(make)
    with report_lost_process():
        dist.all_gather_object(outcomes, mine)
    return [value_or_raise(outcome) for outcome in outcomes]


def call_or_catch(make: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return make(), None
    except Exception as error:
        return None, error


def value_or_raise(outcome: tuple[T, Exception | None]) -> T:
    value, error = outcome
    if error is not None:
        raise error
    return value


@contextlib.contextmanager
def enter_on_main_process(context: contextlib.AbstractContextManager) -> Iterator[None]:
    """The context, entered by the first process alone; where that fails, it fails for all."""
    with contextlib.ExitStack() as stack:
        on_main_process(lambda: stack.enter_context(context) and None)
        yield


def shard_rows(items: Sequence[T]) -> Sequence[T]:
    """This process's part, as long as every other's: the last item is repeated where they do not divide."""
    return [*items, *[items[-1]] * (-len(items) % WORLD)][RANK::WORLD]


def shard_batch(batch: dict[str, Tensor], fillers: dict[str, int]) -> dict[str, Tensor]:
    """This process's rows of a batch; columns stay. Where they do not divide, the last row is repeated with the
    `fillers` as values.
    """
    if WORLD == 1:
        return batch
    rows = len(batch["input_ids"])
    own, real = (
        shard_rows(range(rows)),
        rows > RANK + WORLD * (-(-rows // WORLD) - 1),
    )  # whether the last one is no repetition
    shared = {}
    for name, tensor in batch.items():
        shared[name] = tensor[own] if tensor.dim() > 1 else tensor
        if name in fillers and not real:
            shared[name][-1] = fillers[name]
    return shared


# Sums -----------------------------------------------------------------------------------------------------------------


def all_reduce_sum(tensors: Sequence[Tensor]) -> None:
    """Puts the sum over all processes into each tensor, by one all-reduce."""
    if WORLD == 1:
        return
    import torch
    import torch.distributed as dist

    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with report_lost_process():
        dist.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def all_reduce_max(*numbers: int) -> Sequence[int]:
    """The highest that a process has of each: what one has to tell between two steps. On the CPU, where reading it
    stalls no GPU.
    """
    if WORLD == 1:
        return numbers
    import torch
    import torch.distributed as dist

    told = torch.tensor(numbers)
    with report_lost_process():
        dist.all_reduce(told, dist.ReduceOp.MAX)
    return told.tolist()


def rank_seed(seed: int) -> int:
    """For what each process draws on its own."""
    return seed + SEED_STRIDE * RANK


# Ends -----------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def report_lost_process() -> Iterator[None]:
    """Waiting for the others. Raises UserError where one of them is gone."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(f"another process of this run ended: {first_line(error, 100)}") from error


def message_of_main_process(line: str) -> str | None:
    """The line as this process should say it: the first one's alone where all fail alike, and any other's with its
    number.
    """
    if STORE is None:
        return line
    if RANK == 0:
        STORE.set("failed", "")
        return line
    try:
        STORE.wait(["failed"], datetime.timedelta(seconds=5))
    except Exception:  # it has not failed, or the store is gone
        return f"process {RANK}: {line}"
    return None


# Models that are too large --------------------------------------------------------------------------------------------


def shard_blocks(model: nn.Module, blocks: Sequence[nn.Module], device: torch.device) -> None:
    """Shares the frozen weights of the model's blocks out over the processes (FSDP2); each block's are together while
    it computes.

    What is trained stays whole in every process, and so do embeddings and head.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (WORLD,))
    trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
    for block in blocks:
        fully_shard(block, mesh=mesh, ignored_params=trained & set(block.parameters()))
    # The modules around the blocks, which have no part in it, fetch the next block while one computes.
    inside = {parameter for block in blocks for parameter in block.parameters()}
    for module in list(model.modules()):
        if any(block in blocks for child in module.children() for block in child.children()):
            fully_shard(module, mesh=mesh, ignored_params=set(module.parameters()) - inside)
