"""Methods that act inside the model or on its own weights: none at all, all of them, LoRA."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import ClassVar

from adept.base.options import WIDEST, option
from adept.methods.method import Method
from adept.models.families import attention_projections


class ZeroShot(Method):
    """The frozen model as it is. Nothing is trained."""

    name: ClassVar[str] = "zero_shot"
    reference: ClassVar[str] = "no adaptation"

    def apply(self, model, tokenizer):
        return model


class Full(Method):
    """Full fine-tuning: every weight of the model is trained."""

    name: ClassVar[str] = "full"
    reference: ClassVar[str] = "Tables 3-6, fine-tuning"
    rates: ClassVar[Mapping[str, str]] = {r".*": "lr"}
    trains_model: ClassVar[bool] = True

    lr: float = option(1e-5, "peak rate of all weights", ge=0.0)

    def apply(self, model, tokenizer):
        return model.requires_grad_(True)


class LoRA(Method):
    """Low-rank updates of the attention's projections, by the PEFT library."""

    name: ClassVar[str] = "lora"
    reference: ClassVar[str] = "Hu et al. 2022; Appendix C"
    rates: ClassVar[Mapping[str, str]] = {r".*\.lora_[AB]\..*": "lr"}

    rank: int = option(16, "rank of LoRA's matrices (Appendix C)", ge=1, le=WIDEST)
    lora_alpha: float = option(32.0, "LoRA's alpha (Appendix C, LoPA's setting)", ge=0.0)
    lora_dropout: float = option(0.1, "LoRA's dropout", ge=0.0, le=0.99)
    lr: float = option(1e-4, "peak rate of LoRA's matrices", ge=0.0)

    def apply(self, model, tokenizer):
        import peft

        config = peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=attention_projections(model),
        )
        with warnings.catch_warnings():  # PEFT asks transformers by a name that this will drop
            warnings.simplefilter("ignore", FutureWarning)
            return peft.get_peft_model(model, config)
