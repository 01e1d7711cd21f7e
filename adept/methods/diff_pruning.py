"""Diff pruning: a difference from every weight of the model that ends up zero nearly everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from adept.base.errors import UserError
from adept.base.options import option
from adept.methods.method import Method


class DiffPruning(Method):
    """Every weight is its frozen value plus a trained difference. Two runs: which elements, then their values.

    The 'relaxed' run trains differences and masks on them, with a penalty for masks that are open. The 'fixed' run goes
    on from it (--init_from) with the largest differences alone.
    """

    name: ClassVar[str] = "diff_pruning"
    reference: ClassVar[str] = "Guo et al. 2021"
    rates: ClassVar[Mapping[str, str]] = {r".*\.difference": "lr", r".*\.(tensor_)?mask": "mask_lr"}
    trains_model: ClassVar[bool] = True

    stage: Literal["relaxed", "fixed"] = option(
        "relaxed", "'relaxed' trains differences and masks, 'fixed' the kept differences of a relaxed run (--init_from)"
    )
    sparsity: float = option(0.005, "share of the model's numbers whose difference 'fixed' keeps", ge=0.0, le=1.0)
    penalty: float = option(1.25e-7, "weight of each open mask in the 'relaxed' loss", ge=0.0)
    lr: float = option(5e-5, "peak rate of the differences", ge=0.0)
    mask_lr: float = option(0.1, "peak rate of the masks of 'relaxed'", ge=0.0)

    def learning_rates(self) -> dict[str, float]:
        """A fixed mask has no rate."""
        return {p: rate for p, rate in super().learning_rates().items() if self.stage == "relaxed" or "mask" not in p}

    def apply(self, model, tokenizer):
        from adept.methods.differences import Difference, RelaxedDifference, add_differences

        add_differences(model, RelaxedDifference if self.stage == "relaxed" else Difference)
        return model

    def extra_loss(self, model):
        from adept.methods.differences import differences

        if self.stage == "fixed":
            return None
        return self.penalty * sum(difference.expected_size() for difference in differences(model))

    def adopt(self, weights):
        from adept.methods.differences import is_relaxed, keep_largest

        return keep_largest(weights, self.sparsity) if self.stage == "fixed" and is_relaxed(weights) else weights

    def before_training(self, model, gradients_of) -> None:
        if self.stage == "fixed" and not self.count_trained(model):
            raise UserError(
                "method 'diff_pruning' has no difference to train with --stage fixed: --init_from must name a run of "
                "--stage relaxed that was trained"
            )

    def count_trained(self, model) -> int:
        from adept.methods.differences import differences, kept_count

        found = list(differences(model))
        if self.stage == "relaxed":
            return sum(parameter.numel() for difference in found for parameter in difference.parameters())
        if any(difference.difference.is_meta for difference in found):
            return kept_count(sum(difference.difference.numel() for difference in found), self.sparsity)
        return sum(int(difference.difference.count_nonzero()) for difference in found)
