"""The states of the random generators, as a checkpoint holds them."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor

from adept.base import distributed
from adept.base.errors import first_line


def random_state(device: torch.device) -> tuple[dict, dict[str, Tensor]]:
    """(python's and numpy's generators as JSON, torch's as uint8 tensors)"""
    name, keys, *rest = np.random.get_state()
    tensors = {"random/cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        tensors["random/mps"] = torch.mps.get_rng_state()
    return {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest]}, tensors


def generator_name(name: str, rank: int) -> str:
    """Where the state of a process's generator lies: the first's under its name."""
    return f"{name}/{rank}" if rank else name


def restore_random_state(generators: dict, tensors: dict[str, Tensor], device: torch.device) -> None:
    """A run that goes on elsewhere (CPU to GPU, or in more processes) keeps that device's or process's generator as its
    seed made it.

    Raises ValueError for what is none.
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
