"""The states of the random generators, as a checkpoint holds them."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor

from adept.base import distributed
from adept.base.errors import first_line


def random_state(device: torch.device) -> tuple[dict, dict[str, Tensor]]:
    """(Python's and NumPy's generators as JSON, torch's as uint8 tensors by name)."""
    name, keys, *rest = np.random.get_state()
    tensors = {"random/cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        tensors["random/mps"] = torch.mps.get_rng_state()
    return {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest]}, tensors


def generator_name(name: str, rank: int) -> str:
    """The name of a process's generator in a checkpoint; the main process's has no number."""
    return f"{name}/{rank}" if rank else name


def restore_random_state(generators: dict, tensors: dict[str, Tensor], device: torch.device) -> None:
    """Sets the generators to a checkpoint's states. Raises ValueError for what is no state of a generator.

    A device or process of which the checkpoint holds no generator (a run that moves from CPU to GPU, or to more
    processes) keeps the generator that the seed made.
    """
    own = {
        kind: tensors[name]
        for kind in ("cpu", "cuda", "mps")
        if (name := generator_name(f"random/{kind}", distributed.RANK)) in tensors
    }
    try:
        version, numbers, normal = generators["python"]
        random.setstate((version, tuple(numbers), normal))
        name, keys, place, *rest = generators["numpy"]
        if not 0 <= place <= 624:
            raise ValueError(f"place {place} is beyond its 624 numbers")  # where numpy would read without looking
        np.random.set_state((name, keys, place, *rest))
        if distributed.RANK == 0 or "cpu" in own:
            torch.set_rng_state(own["cpu"])
        if device.type == "cuda" and "cuda" in own:
            torch.cuda.set_rng_state(own["cuda"], device)
        if device.type == "mps" and "mps" in own:
            torch.mps.set_rng_state(own["mps"])
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"holds random generators that cannot be restored ({first_line(error, 80)})") from error
