"""What a machine computes: bf16 on its CPU, and the precision of fp32 products on GPUs, which torch keeps in switches
of the whole process.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

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


def cpu_computes_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has bf16 arithmetic, as Linux lists its features; the others emulate it, slower than fp32."""
    with contextlib.suppress(OSError):
        return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", cpuinfo.read_text(encoding="utf-8")) is not None
    return False
