"""The precision of fp32 matrix products on GPUs, which torch keeps in switches of the whole process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def tf32_products(enabled: bool) -> Iterator[None]:
    """Inside, products of fp32 matrices are computed in tf32, or in fp32. Afterwards the switches are as before."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = enabled
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value
