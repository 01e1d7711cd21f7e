"""One run in several processes: torchrun --nproc_per_node 2 train.py ...

Each process has the frozen model (with --shard_model its part of the blocks) and takes its share of every batch's rows.
Each divides its loss by the number of target tokens of the whole batch, which all processes know. So the losses add up
to the loss of the whole batch, and the gradients to its gradient; one all-reduce a step, of some 300 KB, adds them.
Clipping and AdamW then do the same in every process. The main process alone (rank 0) claims the run, writes and prints.
Dropout inside the model draws other masks in each process.

Without torchrun there is the main process alone, and the functions here do nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from adept.base.errors import UserError, first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

RANK, WORLD = 0, 1
"""This process's rank and the number of processes. initialize() sets them."""

STORE: Any = None
"""torch's key-value store of all processes. It outlives each of them."""

SEED_STRIDE = 1_000_003
"""The distance between the seeds of two processes."""

TIMEOUT = datetime.timedelta(hours=6)
"""How long a process waits for the others. It may be long, because torchrun ends all processes when one dies."""

T = TypeVar("T")


def started_by_torchrun() -> bool:
    """Whether torchrun started this process and others."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def initialize() -> None:
    """Joins the processes that torchrun started; without torchrun it does nothing.

    Raises UserError where there are fewer GPUs than processes.
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
    dist.init_process_group(backend, store=STORE, rank=rank, world_size=world, timeout=TIMEOUT)
    RANK, WORLD = rank, world


def shutdown(code: int) -> NoReturn:
    """Ends the process. With exit code 0 it waits until all processes end."""
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


# Shared work ----------------------------------------------------------------------------------------------------------


def on_main_process(make: Callable[[], T]) -> T:
    """Calls make() on the main process. Returns its value, or raises its exception, on all processes."""
    if WORLD == 1:
        return make()
    import torch
    import torch.distributed as dist

    outcome: list = [call_or_catch(make) if RANK == 0 else None]
    with report_lost_process():
        dist.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
    return value_or_raise(outcome[0])


def gather_objects(make: Callable[[], T]) -> list[T]:
    """Calls make() on every process. Returns all values, or raises the first exception, on all processes."""
    if WORLD == 1:
        return [make()]
    import torch.distributed as dist

    outcomes: list = [None] * WORLD
    mine = call_or_catch(make)
    with report_lost_process():
        dist.all_gather_object(outcomes, mine)
    return [value_or_raise(outcome) for outcome in outcomes]


def call_or_catch(make: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """(the value of make(), None), or (None, what it raises)."""
    try:
        return make(), None
    except Exception as error:
        return None, error


def value_or_raise(outcome: tuple[T, Exception | None]) -> T:
    """The opposite of call_or_catch()."""
    value, error = outcome
    if error is not None:
        raise error
    return value


@contextlib.contextmanager
def enter_on_main_process(context: contextlib.AbstractContextManager) -> Iterator[None]:
    """Enters the context on the main process alone. An exception on entering is raised on all processes."""
    with contextlib.ExitStack() as stack:
        on_main_process(lambda: stack.enter_context(context) and None)
        yield


def shard_rows(items: Sequence[T]) -> Sequence[T]:
    """This process's items. All processes get equally many: the last item is repeated where that is needed."""
    return [*items, *[items[-1]] * (-len(items) % WORLD)][RANK::WORLD]


def shard_batch(batch: dict[str, Tensor], fillers: dict[str, int]) -> dict[str, Tensor]:
    """This process's rows of a batch, with all columns.

    Where the rows do not divide evenly, the last row is repeated; tensors named in `fillers` hold that value there.
    """
    if WORLD == 1:
        return batch
    rows = len(batch["input_ids"])
    own = shard_rows(range(rows))
    repeats = rows <= RANK + WORLD * (len(own) - 1)  # whether this process's last row is a repetition
    shared = {}
    for name, tensor in batch.items():
        shared[name] = tensor[own] if tensor.dim() > 1 else tensor
        if name in fillers and repeats:
            shared[name][-1] = fillers[name]
    return shared


# Sums -----------------------------------------------------------------------------------------------------------------


def all_reduce_sum(tensors: Sequence[Tensor]) -> None:
    """Replaces each tensor by its sum over all processes, with a single all-reduce."""
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
    """The maximum of each number over all processes. It is computed on the CPU, so that no GPU is stalled."""
    if WORLD == 1:
        return numbers
    import torch
    import torch.distributed as dist

    highest = torch.tensor(numbers)
    with report_lost_process():
        dist.all_reduce(highest, dist.ReduceOp.MAX)
    return highest.tolist()


def rank_seed(seed: int) -> int:
    """The seed of what this process draws for itself, such as dropout masks. The main process has `seed`."""
    return seed + SEED_STRIDE * RANK


# Ends -----------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def report_lost_process() -> Iterator[None]:
    """For communication with the other processes. Raises UserError where one of them has ended.

    From then on SIGTERM is ignored: torchrun sends it to the processes that are left, and it would end this one before
    the reason is printed. One that hangs is ended by the SIGKILL that follows.
    """
    try:
        yield
    except RuntimeError as error:
        with contextlib.suppress(ValueError):  # outside the main thread, which alone may say so
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise UserError(f"another process of this run ended: {first_line(error, 100)}") from error


def message_of_main_process(line: str) -> str | None:
    """The error line that this process should print, or None where the main process prints one.

    So a mistake that all processes meet is printed once. A process that fails alone adds its number to the line.
    """
    if STORE is None:
        return line
    if RANK == 0:
        STORE.set("failed", "")
        return line
    try:
        STORE.wait(["failed"], datetime.timedelta(seconds=5))
    except Exception:  # the main process has not failed, or the store is gone
        return f"process {RANK}: {line}"
    return None


# Models that are too large --------------------------------------------------------------------------------------------


def shard_blocks(model: nn.Module, blocks: Sequence[nn.Module], device: torch.device) -> None:
    """Distributes the frozen weights of the model's blocks over the processes (FSDP2).

    A block's weights are gathered while it computes. Trained parameters, embeddings and head stay complete in every
    process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (WORLD,))
    trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
    for block in blocks:
        fully_shard(block, mesh=mesh, ignored_params=trained & set(block.parameters()))
    # The modules that contain blocks keep their own weights, but must be wrapped to fetch the next block ahead of time.
    inside = {parameter for block in blocks for parameter in block.parameters()}
    for module in list(model.modules()):
        if any(block in blocks for child in module.children() for block in child.children()):
            fully_shard(module, mesh=mesh, ignored_params=set(module.parameters()) - inside)
