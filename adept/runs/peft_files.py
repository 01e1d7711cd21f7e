"""Adapter folders of the PEFT library: what adapter_config.json says, and the tensors under our names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from adept.base.console import print_status
from adept.base.errors import UserError, first_line
from adept.models.loading import locate

PEFT_WEIGHTS, PEFT_DESCRIPTION = "adapter_model.safetensors", "adapter_config.json"

OF_PROMPT = {
    "prompt_embeddings": "prompt",
    "prompt_encoder.lora_embedding_A": "offset.a",
    "prompt_encoder.lora_embedding_B": "offset.b",
}
"""Tensor names of PEFT's prompt tuning and of DePT's released adapters -> ours, below the input embedding."""

SCALES = {"lora_alpha": 8, "use_rslora": False, "use_dora": False, "alpha_pattern": {}, "rank_pattern": {}}
"""Entries of a LoRA's adapter_config.json that change what its tensors mean, with PEFT's defaults."""


class PeftDescription(BaseModel):
    """What adapter_config.json holds of what is read here."""

    peft_type: str
    base_model_name_or_path: str | None = None
    num_virtual_tokens: int = 0
    num_transformer_submodules: int | None = 1
    max_length: int | None = None
    r: int = 0
    lora_alpha: float = 8
    scales: dict[str, Any] = {}
    """Those of SCALES."""

    def method_options(self) -> dict[str, Any]:
        """The method with its options that an adapter of this kind is here.

        Raises UserError for a kind that is none.
        """
        if self.peft_type == "PROMPT_TUNING" and self.num_transformer_submodules == 2:
            raise UserError("its prompt has rows for the decoder, too (num_transformer_submodules 2), which pt has not")
        match self.peft_type:
            case "PROMPT_TUNING":
                return {"method": "pt", "prompt_len": self.num_virtual_tokens}
            case "LORA":
                return {"method": "lora", "rank": self.r, "lora_alpha": self.lora_alpha}
            case "PROMPT_TUNING_LORA":  # DePT's authors
                sizes = {"prompt_len": self.num_virtual_tokens, "rank": self.r, "offset_alpha": self.lora_alpha}
                lengths = {"offset_len": self.max_length, "max_source_len": self.max_length}
                return {"method": "dept", **sizes, **(lengths if self.max_length else {})}
        raise UserError(f"it is of PEFT's type {self.peft_type}; PROMPT_TUNING and LORA are read")


def read_peft(folder: Path) -> PeftDescription | None:
    """What a PEFT folder says of its adapter; None for a folder without adapter_config.json.

    Raises UserError for one that cannot be read or is of a kind that is not.
    """
    path = folder / PEFT_DESCRIPTION
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = PeftDescription(**values, scales={name: values.get(name, SCALES[name]) for name in SCALES})
        found.method_options()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, ValidationError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error, 100)}") from error
    return found


def our_names(weights: Mapping[str, Tensor], trained: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Tensors of a PEFT folder under the names of the parameters `trained`; other names stay."""
    renamed = {}
    for name, tensor in weights.items():
        if name in OF_PROMPT:
            name = next((own for own in trained if own.endswith("." + OF_PROMPT[name])), name)
        renamed[re.sub(r"\.lora_([AB])\.weight$", r".lora_\1.default.weight", name)] = tensor
    return renamed


def require_same_scales(model: nn.Module, folder: Path) -> None:
    """Raises UserError where a LoRA's tensors would be scaled otherwise in `model` than where they were trained."""
    described, tuners = read_peft(folder), getattr(model, "peft_config", None)
    if described is None or described.peft_type != "LORA" or tuners is None:
        return
    for name, value in described.scales.items():
        if (own := getattr(tuners["default"], name)) != value:
            remedy = f": --{name} {value}" if name == "lora_alpha" else ""
            raise UserError(
                f"the adapter in {folder} does not fit: it has {name} {value}, this run {own or 'none'}{remedy}"
            )


def say_other_base(folder: Path, model: str) -> None:
    """Prints a line where a PEFT folder names another base than `model`: it tells no digest of its weights."""
    described = read_peft(folder)
    if described is None or described.base_model_name_or_path is None:
        return
    base = described.base_model_name_or_path
    if base not in (model, locate(model)) and Path(base).name != Path(locate(model)).name:
        print_status(
            f"the adapter in {folder} names the base model {base}; whether {model} has its weights cannot be told"
        )
