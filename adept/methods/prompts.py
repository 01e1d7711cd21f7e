"""Methods that live in the input embedding: prompt tuning, DePT and ADePT."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import field_validator

from adept.base.errors import UserError
from adept.base.options import MOST_TOKENS, WIDEST, option
from adept.base.validation import line_error
from adept.methods.method import Method
from adept.models.families import input_embedding_owner

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adept.methods.prompt_sources import PromptSource

PROMPT_RATE = {r".*\.prompt": "prompt_lr"}
OFFSET_RATE = {r".*\.offset\..*": "offset_lr"}

PROMPT_LEN = "virtual tokens: m of ADePT and DePT, l of PT (Eq. 1-4)"

VOCAB_ROWS = (
    "'vocab' draws from this many most frequent tokens; a number beyond the vocabulary: from all of it, as PEFT's "
    "SAMPLE_VOCAB"
)


class PromptMethod(Method):
    """A soft prompt of `prompt_len` virtual tokens before the source. A subclass says what makes the prompt.

    It may add an offset to the source.
    """

    rates: ClassVar[Mapping[str, str]] = PROMPT_RATE
    stacks: ClassVar[bool] = True
    needs_prompt: ClassVar[bool] = True
    """Without a prompt nothing is left of it."""

    prompt_len: int = option(100, PROMPT_LEN, ge=0, le=WIDEST)
    prompt_lr: float = option(0.3, "peak rate of the prompt (Appendix E)", ge=0.0)

    @field_validator("prompt_len")
    @classmethod
    def _needs_prompt(cls, value: int) -> int:
        if not value and cls.needs_prompt:
            line = (
                f"--prompt_len must be >= 1 for method '{cls.name}': without a prompt nothing is left of it "
                "(only adept runs with 0)"
            )
            raise line_error(line)
        return value

    @property
    def virtual_tokens(self) -> int:
        return self.prompt_len

    def learning_rates(self) -> dict[str, float]:
        """Without prompt tokens there is no prompt to have a rate (Table 14)."""
        rates = super().learning_rates()
        if self.prompt_len:
            return rates
        return {pattern: rate for pattern, rate in rates.items() if pattern not in PROMPT_RATE}

    def offset(self, width: int) -> nn.Module | None:
        """A new module (embeds [B, T, D], is_prompt [B, T]) -> offset [B, T, D]; None: no offset. width: D."""
        return None

    @property
    def use_offset(self) -> bool:
        """False evaluates a trained adapter with its prompt alone."""
        return True

    def make_prompt(self, embedding: nn.Module, tokenizer: Any) -> Tensor | PromptSource:
        """The prompt at the start: [m, D], which is trained as it is, or what makes it.

        embedding: the model's own. Raises UserError where the options do not fit the model.
        """
        raise NotImplementedError

    def apply(self, model, tokenizer):
        from adept.methods.embedding import PromptedEmbedding, set_input_embedding
        from adept.models.capabilities import check_prompt_ids

        owner = input_embedding_owner(model)
        base = owner.get_input_embeddings()
        device = base.weight.device
        # What is random is drawn on the CPU, wherever the model is; where it has no values, nothing is drawn.
        with device if device.type == "meta" else contextlib.nullcontext():
            prompt = self.make_prompt(base, tokenizer).to(device)
            offset = self.offset(base.weight.shape[1])
            offset = None if offset is None else offset.to(device)
        prompted = PromptedEmbedding(base, prompt, offset, use_offset=self.use_offset)
        set_input_embedding(owner, prompted)
        if self.prompt_len and device.type != "meta":
            check_prompt_ids(model, prompted.vocab_size)
            prompted.forget()
        return model


class InitialPromptMethod(PromptMethod):
    """A prompt method with a table [m, D] that starts from the vocabulary, from a text or from random numbers."""

    prompt_init: Literal["vocab", "text", "random"] = option(
        "vocab",
        "prompt rows start as: 'vocab' embeddings of frequent tokens (Section 4.1), the 'text' of --prompt_init_text "
        "(released code), 'random' N(0,1)",
    )
    prompt_init_vocab: int = option(5000, VOCAB_ROWS, ge=1)
    prompt_init_text: str = option(
        "Classify this text is postive or not:",
        "'text' repeats this string's tokens (released code, spelling included)",
    )

    def make_prompt(self, embedding, tokenizer):
        from adept.methods.embedding import prompt_from_ids, prompt_from_vocab, random_prompt

        match self.prompt_init:
            case "vocab":
                return prompt_from_vocab(embedding, self.prompt_len, self.prompt_init_vocab)
            case "text":
                if not (ids := tokenizer(self.prompt_init_text).input_ids):
                    raise UserError(
                        f"--prompt_init_text {self.prompt_init_text!r} has no tokens to start the prompt from"
                    )
                if max(ids) >= len(embedding.weight):
                    raise UserError(
                        f"--prompt_init_text {self.prompt_init_text!r} has a token of id {max(ids)}, but the model's "
                        f"embedding only {len(embedding.weight)} rows"
                    )
                return prompt_from_ids(embedding, self.prompt_len, ids)
            case "random":
                return random_prompt(embedding.weight, self.prompt_len)


class PT(InitialPromptMethod):
    """Prompt tuning, Eq. 1: a soft prompt and nothing else."""

    name: ClassVar[str] = "pt"
    reference: ClassVar[str] = "Lester et al. 2021; Section 3.1, Eq. 1"


class SPoT(PT):
    """Prompt tuning that goes on from a prompt trained on another task (--init_from)."""

    name: ClassVar[str] = "spot"
    reference: ClassVar[str] = "Vu et al. 2022; Tables 3 and 4"
    needs_start: ClassVar[bool] = True


class OffsetMethod(InitialPromptMethod):
    """A prompt method that also adds a trained offset to the embeddings of the source."""

    rates: ClassVar[Mapping[str, str]] = PROMPT_RATE | OFFSET_RATE
    evaluation: ClassVar[tuple[str, ...]] = ("without_offset",)

    prompt_len: int = option(60, PROMPT_LEN, ge=0, le=WIDEST)
    offset_lr: float = option(1e-4, "peak rate of the network or low-rank matrices (Appendix E)", ge=0.0)
    without_offset: bool | None = option(None, "a trained adapter is evaluated with its prompt only (Table 11)")

    @property
    def use_offset(self) -> bool:
        return not self.without_offset


class PositionOffsetMethod(OffsetMethod):
    """A method whose offset depends on the position after the prompt, up to a longest one."""

    rank: int = option(30, "rank of DePT's A B (Eq. 2)", ge=1, le=WIDEST)
    offset_len: int | None = option(
        None,
        "s of DePT: positions after the prompt that carry an offset; default max_source_len (Section 3.1)",
        ge=1,
        le=MOST_TOKENS,
    )

    def with_source_length(self, max_source_len: int) -> Self:
        return self if self.offset_len is not None else self.replace(offset_len=max_source_len)


class DePT(PositionOffsetMethod):
    """Decomposed prompt tuning, Eq. 2: a shorter prompt, and an offset by position, the product of two matrices."""

    name: ClassVar[str] = "dept"
    reference: ClassVar[str] = "Shi and Lipani 2024; Section 3.1, Eq. 2"
    evaluation: ClassVar[tuple[str, ...]] = ("offset_shift", "without_offset")

    offset_alpha: float = option(
        0.0, "DePT's offset is scaled by this / sqrt(rank) (DePT's code: 8); 0: not scaled (Eq. 2)", ge=0.0
    )
    offset_shift: int | None = option(
        None,
        "a trained DePT is evaluated with its offsets cyclically shifted left by this many positions (Table 1)",
        ge=0,
    )

    def offset(self, width: int) -> nn.Module:
        from adept.methods.offsets import PositionOffset

        return PositionOffset(
            width,
            self.offset_len,
            self.rank,
            alpha=self.offset_alpha,
            shift=self.offset_shift or 0,
        )


class ADePT(OffsetMethod):
    """Adaptive decomposed prompt tuning, Eq. 3-4: a short prompt, and a network that moves each token's embedding."""

    name: ClassVar[str] = "adept"
    reference: ClassVar[str] = "Section 3.2, Eq. 3-4"
    folds: ClassVar[bool] = True
    needs_prompt: ClassVar[bool] = False

    bottleneck: int = option(19, "r of ADePT's network, d -> r -> d (Eq. 3)", ge=1, le=WIDEST)
    bottleneck_init: Literal["rank", "width"] = option(
        "rank", "W_down's uniform bound: 'rank' 1/sqrt(r) (released code), 'width' 1/sqrt(d) (torch's Linear)"
    )
    bottleneck_dropout: float = option(
        0.0, "dropout before the bottleneck's ReLU (released code 0.1; Eq. 3 has none)", ge=0.0, le=0.99
    )

    def offset(self, width: int) -> nn.Module:
        from adept.methods.offsets import TokenOffset

        return TokenOffset(width, self.bottleneck, dropout=self.bottleneck_dropout, init=self.bottleneck_init)


class PromptAndEmbedding(InitialPromptMethod):
    """Prompt tuning beside the model's embedding table, which is trained too."""

    name: ClassVar[str] = "pt_embedding"
    reference: ClassVar[str] = "Table 10, prompt and embedding matrix"
    rates: ClassVar[Mapping[str, str]] = PROMPT_RATE | {r"(?!.*\.prompt).*": "lr"}
    stacks: ClassVar[bool] = False
    trains_model: ClassVar[bool] = True

    lr: float = option(1e-4, "peak rate of the embedding table", ge=0.0)

    def apply(self, model, tokenizer):
        table = input_embedding_owner(model).get_input_embeddings().weight
        model = super().apply(model, tokenizer)
        table.requires_grad_(True)
        return model
