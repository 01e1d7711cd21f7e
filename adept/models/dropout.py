"""The dropout of the frozen model's layers: its rate, and masks that are cheap to draw on a CPU.

torch draws 64 random bits for each element, one element after the other: a fifth of T5's training step on CPUs that
are not Intel's. Here each element takes 16 bits, so one draw serves four elements. GPUs and compiled steps use torch's
own dropout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from adept.base.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

BITS = 16


def draws_own_masks(x: Tensor) -> bool:
    """Whether this file draws the masks for x, not torch."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zeroes each element of x with probability p, and multiplies the others by 1 / (1 - p).

    x has any shape. p is rounded to a multiple of 1 / 65,536. Without training, or with p = 0, x itself is returned.
    """
    if not (training and p):
        return x
    if not draws_own_masks(x):
        return nn.functional.dropout(x, p)
    dropped, count = round(p * 2**BITS), x.numel()
    draws = torch.empty(-(-count * BITS // 64), dtype=torch.int64).random_(-(2**63), None)  # None: the largest int64
    numbers = draws.view(torch.int16)[:count].view(x.shape)  # uniform over -32,768 to 32,767
    kept, scale = numbers >= dropped - 2 ** (BITS - 1), x.new_tensor(2**BITS / (2**BITS - dropped))
    return x * torch.where(kept, scale, x.new_zeros(()))


class FastMaskDropout(nn.Dropout):
    """nn.Dropout with this file's masks."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        return dropout(x, self.p, self.training)


def patch_dropout(module: nn.Module) -> nn.Module:
    """Gives every dropout in a module this file's masks, in place. Names and parameters stay."""
    for part in module.modules():
        if type(part) is nn.Dropout:
            part.__class__ = FastMaskDropout
    return module


# The rate ------------------------------------------------------------------------------------------------------------


def set_config_dropout(config: PretrainedConfig, rate: float) -> None:
    """Gives every dropout rate in a model's config, and in the configs within it, that value, in place.

    Layers are not dropped as a whole any more, and a router's inputs get no noise. Models are built from the config
    afterwards: some of their dropouts are no modules.
    """
    from transformers import PretrainedConfig

    for name, value in list(vars(config).items()):
        if isinstance(value, PretrainedConfig):
            set_config_dropout(value, rate)
        elif isinstance(value, float | int) and not isinstance(value, bool):
            if "dropout" in name or name.endswith("pdrop"):
                vars(config)[name] = rate  # not setattr: MPT declares a rate as an integer
            elif name.endswith(("layerdrop", "jitter_noise")):
                vars(config)[name] = 0.0


class DropoutRates(TorchFunctionMode):
    """Inside, `found` collects the rates of all dropouts that are computed."""

    def __init__(self):
        super().__init__()
        self.found: set[float] = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (F.dropout, torch.dropout):
            p, training = (*args, *(kwargs[name] for name in ("p", "training", "train") if name in kwargs))[1:3]
            self.found.add(p if training else 0.0)
        elif function is F.scaled_dot_product_attention:
            self.found.add(kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0))
        return function(*args, **kwargs)


def check_dropout(model: PreTrainedModel, rate: float) -> None:
    """Runs two tokens through a model. Raises UserError where one of its dropouts has another rate."""
    for module in model.modules():
        if isinstance(module, nn.Dropout) and module.p:
            module.p = rate
    ids = torch.ones(1, 2, dtype=torch.long, device=model.device)
    inputs = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    was_training = model.training
    with torch.random.fork_rng(devices=[]), torch.no_grad(), DropoutRates() as rates:
        model.train()(input_ids=ids, attention_mask=ids, **inputs)
    model.train(was_training)
    if others := rates.found - {0.0, rate}:
        raise UserError(
            f"--model_dropout {rate:g} cannot be set in {type(model).__name__}: its code has a dropout of "
            f"{', '.join(f'{other:g}' for other in sorted(others))}; leave --model_dropout out"
        )
