"""Prefix-tuning: trained keys and values that every attention sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from adept.base.options import WIDEST, option
from adept.methods.method import Method


class Prefix(Method):
    """Each attention sees `prompt_len` trained keys and values before those of its tokens. No token is added.

    Those of the network (`hidden` > 0) are trained and stored as the network: nothing is dropped after training.
    """

    name: ClassVar[str] = "prefix"
    reference: ClassVar[str] = "Li and Liang 2021"
    rates: ClassVar[Mapping[str, str]] = {r".*\.prefix\..*": "lr"}

    prompt_len: int = option(10, "keys and values that each attention sees more", ge=1, le=WIDEST)
    hidden: int = option(
        0, "width of the network that makes the prefix from embeddings (Li and Liang: 512); 0: a table", ge=0, le=WIDEST
    )
    where: Literal["all", "encoder"] = option("all", "'all' attentions have a prefix, or those of the 'encoder'")
    lr: float = option(1e-2, "peak rate of the prefix", ge=0.0)

    def apply(self, model, tokenizer):
        from adept.models.prefix_attention import add_prefixes

        add_prefixes(model, self.prompt_len, self.hidden, self.where)
        return model
