"""The two ends: the frozen model as it is, and all of its weights trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from adept.base.options import option
from adept.methods.method import Method


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
