"""Every method of fine-tuning that --method can name. To add one: a class in a file here, and a line in METHODS."""

from __future__ import annotations

from adept.base.errors import UserError, nearest
from adept.methods.adapters import Adapter, AdapterDrop
from adept.methods.biases import BitFit
from adept.methods.diff_pruning import DiffPruning
from adept.methods.in_model import Full, ZeroShot
from adept.methods.ladder import LadderSideTuning
from adept.methods.method import Method
from adept.methods.peft_tuners import IA3, DoRA, LNTuning, LoRA, VeRA
from adept.methods.prefix import Prefix
from adept.methods.prompt_encoders import DPT, ULPT, PTuning, Residual, XPrompt
from adept.methods.prompts import PT, ADePT, DePT, PromptAndEmbedding, SPoT
from adept.methods.released import DePTReLU, LoRAXAB, LoRAXL, PTWithTable

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        ZeroShot,
        Full,
        LoRA,
        PT,
        DePT,
        ADePT,
        SPoT,
        Residual,
        DPT,
        ULPT,
        PTuning,
        XPrompt,
        PromptAndEmbedding,
        PTWithTable,
        DePTReLU,
        LoRAXL,
        LoRAXAB,
        Adapter,
        AdapterDrop,
        BitFit,
        DoRA,
        VeRA,
        IA3,
        LNTuning,
        Prefix,
        LadderSideTuning,
        DiffPruning,
    )
}


def find_method(name: str) -> type[Method]:
    """The method of that name. Raises UserError that names the nearest."""
    if name not in METHODS:
        raise UserError(f"unknown method '{name}'; {nearest(name, METHODS)}")
    return METHODS[name]


__all__ = ["METHODS", "Method", "find_method"]
