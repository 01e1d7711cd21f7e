"""Parameter groups by regex, AdamW, and the schedule as a multiplier on each group's own peak rate."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import nn

from adept.config.run import RunConfig


def parameter_groups(model: nn.Module, rates: Mapping[str, float]) -> list[dict]:
    """One AdamW group per regex: {"params", "lr", "name"}.

    rates: {regex over whole parameter names: peak learning rate}. Raises ValueError unless the regexes partition the
    trainable parameters (each parameter matches exactly one regex, and each regex matches a parameter).
    """
    groups: dict[str, list[nn.Parameter]] = {pattern: [] for pattern in rates}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        matching = [pattern for pattern in rates if re.fullmatch(pattern, name)]
        if len(matching) != 1:
            raise ValueError(
                f"trainable parameter {name} matches {len(matching)} of the patterns {list(rates)}, not exactly one"
            )
        groups[matching[0]].append(parameter)
    empty = [pattern for pattern, parameters in groups.items() if not parameters]
    if empty:
        raise ValueError(f"no trainable parameter matches {empty}")
    return [{"params": parameters, "lr": rates[pattern], "name": pattern} for pattern, parameters in groups.items()]


class Transformers4AdamW(torch.optim.AdamW):
    """AdamW as transformers 4 has it, which the released code trains with.

    It adds eps before the bias correction of the second moment, where torch adds it after, so its eps is torch's eps
    divided by sqrt(1 - beta2^t) at step t. It decays the weights after their update, not before.
    """

    def __init__(self, groups: list[dict], *, eps: float, weight_decay: float, **options):
        super().__init__(groups, eps=eps, weight_decay=0.0, **options)
        self.eps, self.decay = eps, weight_decay

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            made = max((int(self.state[p]["step"]) for p in group["params"] if "step" in self.state[p]), default=0)
            group["eps"] = self.eps / math.sqrt(1 - group["betas"][1] ** (made + 1))
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                if self.decay and parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * self.decay)


def make_optimizer(groups: list[dict], config: RunConfig) -> torch.optim.AdamW:
    """AdamW of the kind --adamw, which remembers each group's peak rate as "initial_lr"."""
    options = {"betas": (config.beta1, config.beta2), "eps": config.eps, "weight_decay": config.weight_decay}
    if config.adamw == "transformers4":
        optimizer = Transformers4AdamW(groups, **options)  # not fused: a count of steps on the GPU would stall it
    else:
        fused = all(p.is_cuda for group in groups for p in group["params"])
        optimizer = torch.optim.AdamW(groups, **options, fused=fused)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def schedule(config: RunConfig) -> Callable[[int], float]:
    """step (0-based) -> multiplier: linear warm-up from 0, then linear decay to 0 at `steps`, or constant (Appendix E).

    transformers' get_linear_schedule_with_warmup, so the first step of a warm-up has rate 0.
    """
    warmup, steps = config.warmup_steps, config.steps

    def multiplier(step: int) -> float:
        if step < warmup:
            return step / warmup
        if config.schedule == "constant":
            return 1.0
        return max(0.0, (steps - step) / max(1, steps - warmup))

    return multiplier


def set_rates(optimizer: torch.optim.Optimizer, multiplier: float) -> None:
    """Each group's rate becomes its own peak rate times the multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * multiplier
