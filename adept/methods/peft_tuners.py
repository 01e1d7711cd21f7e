"""Methods that the PEFT library carries out: LoRA, DoRA, VeRA, (IA)3, LN tuning."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from adept.base.errors import UserError
from adept.base.options import WIDEST, option
from adept.methods.biases import train_biases
from adept.methods.method import Method
from adept.models.families import (
    attention_projections,
    model_kind,
    named_blocks,
    norm_names,
    query_value_projections,
)

if TYPE_CHECKING:
    import peft
    from torch import nn


def add_tuner(model: nn.Module, config: peft.PeftConfig) -> nn.Module:
    """The model inside PEFT's wrapper, with the tuner's parameters in place and trained, and all others frozen."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by a name that this will drop
        # PEFT tells how it reads GPT-2's transposed linears, and that it did not expect T5's norms, which it can tune.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"peft\.")
        return peft.get_peft_model(model, config)


class LowRank(Method):
    """What LoRA and DoRA have in common."""

    rank: int = option(16, "rank of LoRA's matrices (Appendix C)", ge=1, le=WIDEST)
    lora_alpha: float = option(32.0, "LoRA's alpha (Appendix C, LoPA's setting)", ge=0.0)
    lora_dropout: float = option(0.1, "LoRA's dropout", ge=0.0, le=0.99)
    lr: float = option(1e-4, "peak rate of LoRA's matrices", ge=0.0)

    def tuner(self, model, **more) -> peft.LoraConfig:
        """PEFT's configuration for this model. more: further fields of it."""
        import peft

        return peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=attention_projections(model),
            **more,
        )


class LoRA(LowRank):
    """Low-rank updates of the attention's projections, by the PEFT library."""

    name: ClassVar[str] = "lora"
    reference: ClassVar[str] = "Hu et al. 2022; Appendix C"
    rates: ClassVar[Mapping[str, str]] = {r".*\.lora_[AB]\..*": "lr"}

    lora_bias: Literal["all"] | None = option(
        None, "'all' trains BitFit's biases beside LoRA's matrices, as the LoRA row of Table 3 does with rank 32"
    )

    def learning_rates(self) -> dict[str, float]:
        return super().learning_rates() | ({r".*\.bias": self.lr} if self.lora_bias else {})

    def apply(self, model, tokenizer):
        if self.lora_bias:
            train_biases(model)
        return add_tuner(model, self.tuner(model, bias=self.lora_bias or "none"))


class DoRA(LowRank):
    """LoRA on the direction of each row of a weight, and the row's norm trained beside it."""

    name: ClassVar[str] = "dora"
    reference: ClassVar[str] = "Liu et al. 2024"
    rates: ClassVar[Mapping[str, str]] = {r".*\.lora_.*": "lr"}

    def apply(self, model, tokenizer):
        return add_tuner(model, self.tuner(model, use_dora=True))


class VeRA(Method):
    """Two trained vectors for each query and value projection, around random matrices that all of them share."""

    name: ClassVar[str] = "vera"
    reference: ClassVar[str] = "Kopiczko et al. 2024"
    rates: ClassVar[Mapping[str, str]] = {r".*\.vera_lambda_[bd]\..*": "lr"}

    rank: int = option(298, "rank of VeRA's random matrices", ge=1, le=WIDEST)
    projection_seed: int = option(0, "VeRA's random matrices are drawn from this seed and not saved", ge=0)
    lr: float = option(4e-3, "peak rate of VeRA's vectors", ge=0.0)

    def apply(self, model, tokenizer):
        import peft

        config = peft.VeraConfig(
            r=self.rank, target_modules=query_value_projections(model), projection_prng_key=self.projection_seed
        )
        return add_tuner(model, config)


class IA3(Method):
    """Vectors that scale keys, values and the input of each feed-forward network's last linear; they start at 1.

    A fused projection is scaled as a whole, its queries included.
    """

    name: ClassVar[str] = "ia3"
    reference: ClassVar[str] = "Liu et al. 2022; Table 15, (IA)3"
    rates: ClassVar[Mapping[str, str]] = {r".*\.ia3_l\..*": "lr"}

    where: Literal["all", "encoder"] = option(
        "all", "the blocks that are changed; 'encoder': 55,296 parameters (Table 15)"
    )
    lr: float = option(3e-3, "peak rate of the vectors (T-Few's code)", ge=0.0)

    def apply(self, model, tokenizer):
        import peft

        if self.where == "encoder" and model_kind(model) != "encoder-decoder":
            raise UserError(f"--where encoder: {type(model).__name__} has no encoder; --where all")
        blocks = [block for block in named_blocks(model) if block.in_encoder or self.where == "all"]
        feed_forward = [block.feed_forward_output for block in blocks]
        keys_values = [name for block in blocks for name in block.keys_values]
        return add_tuner(
            model, peft.IA3Config(target_modules=keys_values + feed_forward, feedforward_modules=feed_forward)
        )


class LNTuning(Method):
    """The norms of the model are trained, the final ones too."""

    name: ClassVar[str] = "ln_tuning"
    reference: ClassVar[str] = "Zhao et al. 2024"
    rates: ClassVar[Mapping[str, str]] = {r".*\.ln_tuning_layers\..*": "lr"}

    lr: float = option(3e-4, "peak rate of the norms", ge=0.0)

    def apply(self, model, tokenizer):
        import peft

        return add_tuner(model, peft.LNTuningConfig(target_modules=norm_names(model)))
