"""Prompt tuning whose prompt is made of other parameters than its own rows. What is left of them is a plain prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from adept.base.errors import UserError
from adept.base.options import MOST_TOKENS, WIDEST, option
from adept.methods.method import GradientsOf
from adept.methods.prompts import PROMPT_LEN, VOCAB_ROWS, InitialPromptMethod, PromptMethod
from adept.models.families import input_embedding_owner

SOURCE_RATE = {r".*\.source\..*": "prompt_lr"}


class Residual(InitialPromptMethod):
    """Residual prompt tuning: P + LayerNorm(ReLU(P W_1 + b_1) W_2 + b_2), with a network that all tokens share."""

    name: ClassVar[str] = "residual"
    reference: ClassVar[str] = "Razdaibiedina et al. 2023"
    rates: ClassVar[Mapping[str, str]] = SOURCE_RATE

    prompt_len: int = option(40, PROMPT_LEN, ge=0, le=WIDEST)
    prompt_init_vocab: int = option(MOST_TOKENS, VOCAB_ROWS, ge=1)
    hidden: int = option(28, "h, the width of the network beside the prompt (its authors' code: 800)", ge=1, le=WIDEST)
    prompt_lr: float = option(0.3, "peak rate of the prompt and of the network beside it", ge=0.0)

    def make_prompt(self, embedding, tokenizer):
        from adept.methods.prompt_sources import ResidualPrompt

        return ResidualPrompt(super().make_prompt(embedding, tokenizer), self.hidden)


class DPT(PromptMethod):
    """Decomposed prompt tuning of low rank: U V in place of the prompt."""

    name: ClassVar[str] = "dpt"
    reference: ClassVar[str] = "Xiao et al. 2023"
    rates: ClassVar[Mapping[str, str]] = SOURCE_RATE

    rank: int = option(10, "b, the rank of the prompt's U V", ge=1, le=WIDEST)
    prompt_lr: float = option(0.3, "peak rate of U and V", ge=0.0)

    def make_prompt(self, embedding, tokenizer):
        from adept.methods.prompt_sources import ProductPrompt

        return ProductPrompt(self.prompt_len, embedding.weight.shape[1], self.rank)


class ULPT(PromptMethod):
    """Prompt tuning in r dimensions: (Z F) * s + t, where F is a fixed random projection to the model's width.

    F is not saved: --seed draws it again.
    """

    name: ClassVar[str] = "ulpt"
    reference: ClassVar[str] = "ultra-low-dimensional prompt tuning"
    rates: ClassVar[Mapping[str, str]] = SOURCE_RATE
    draws_untrained: ClassVar[bool] = True

    rank: int = option(64, "r, the dimensions of a prompt token", ge=1, le=WIDEST)
    prompt_lr: float = option(0.6, "peak rate of Z, s and t (its authors: 0.6)", ge=0.0)

    def make_prompt(self, embedding, tokenizer):
        import torch

        from adept.methods.prompt_sources import ProjectedPrompt

        # The run's seed, with which torch has been seeded.
        return ProjectedPrompt(self.prompt_len, embedding.weight.shape[1], self.rank, torch.initial_seed())


class PTuning(PromptMethod):
    """P-tuning: rows that pass through a bidirectional LSTM and a network of two layers. The model stays frozen."""

    name: ClassVar[str] = "ptuning"
    reference: ClassVar[str] = "Liu et al. 2021, P-tuning"
    rates: ClassVar[Mapping[str, str]] = SOURCE_RATE

    prompt_lr: float = option(1e-3, "peak rate of the rows, of the LSTM and of the network", ge=0.0)

    def make_prompt(self, embedding, tokenizer):
        from adept.methods.prompt_sources import RecurrentPrompt

        if (width := embedding.weight.shape[1]) % 2:
            raise UserError(f"method '{self.name}' halves the model's width between two directions, but it is {width}")
        return RecurrentPrompt(self.prompt_len, width)


class XPrompt(PromptMethod):
    """A trained prompt whose least important tokens are removed, then the least important pieces of the others.

    What is left is trained on. Importance is the mean, over one pass of the training batches, of the absolute
    derivative of the loss by a factor on the token or on the piece. Removed is what the factor 0 leaves: zeros.
    """

    name: ClassVar[str] = "xprompt"
    reference: ClassVar[str] = "Ma et al. 2022"
    rates: ClassVar[Mapping[str, str]] = SOURCE_RATE
    needs_start: ClassVar[bool] = True

    keep_tokens: float = option(0.5, "share of the prompt's tokens that are kept", ge=0.0, le=1.0)
    keep_pieces: float = option(0.5, "share of the kept tokens' pieces that are kept", ge=0.0, le=1.0)
    pieces: int = option(16, "q, the equal pieces that a prompt token is cut into", ge=1, le=WIDEST)
    importance_rows: int | None = option(
        None, "training rows over which importance is measured, drawn at random; left out: all of them", ge=1
    )
    prompt_lr: float = option(0.3, "peak rate of the pieces that are kept", ge=0.0)

    @property
    def kept_tokens(self) -> int:
        """The number of tokens that are kept, at least one."""
        return max(1, round(self.keep_tokens * self.prompt_len))

    @property
    def kept_pieces(self) -> int:
        """The number of pieces that are kept, at least one."""
        return max(1, round(self.keep_pieces * self.kept_tokens * self.pieces))

    def make_prompt(self, embedding, tokenizer):
        import torch

        from adept.methods.prompt_sources import PrunedPrompt

        width = embedding.weight.shape[1]
        if width % self.pieces:
            raise UserError(f"--pieces {self.pieces} does not divide the model's width {width}")
        return PrunedPrompt(torch.ones(self.prompt_len, width), self.pieces)  # --init_from replaces them

    def before_training(self, model, gradients_of: GradientsOf) -> None:
        source = input_embedding_owner(model).get_input_embeddings().source
        left = int(source.kept.sum())
        if left < self.kept_pieces:
            raise UserError(
                f"the prompt that --init_from names has {left} pieces that are not zero, fewer than the "
                f"{self.kept_pieces} that --keep_tokens {self.keep_tokens} and --keep_pieces {self.keep_pieces} keep"
            )
        if left == self.kept_pieces:  # a trained one, to be evaluated or trained on
            return
        of_tokens, of_pieces = 0, 0  # [m], [m, q]
        for (gradient,) in gradients_of([source.prompt], most=self.importance_rows):
            derivative = source.cut(gradient * source.prompt.detach()).sum(-1)  # [m, q]
            of_tokens, of_pieces = of_tokens + derivative.sum(1).abs(), of_pieces + derivative.abs()
        removed = of_tokens.argsort(descending=True, stable=True)[self.kept_tokens :]
        of_pieces[removed] = -1
        kept = of_pieces.new_zeros(of_pieces.numel())
        kept[of_pieces.flatten().argsort(descending=True, stable=True)[: self.kept_pieces]] = 1
        source.remove_others(kept.view_as(of_pieces))

    def count_trained(self, model) -> int:
        width = input_embedding_owner(model).get_input_embeddings().weight.shape[1]
        return self.kept_pieces * (width // self.pieces)
