"""What a fine-tuning method is: its options, what it changes in the model, and what it trains at which rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

from adept.base.errors import UserError
from adept.base.options import Options
from adept.models.families import MODEL_KINDS, model_kind

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class GradientsOf(Protocol):
    """Computes gradients of the training loss before the training."""

    def __call__(
        self, parameters: Sequence[Tensor], *, batch_size: int | None = None, most: int | None = None
    ) -> Iterator[list[Tensor]]:
        """The parameters' gradients of the mean loss of each training batch of one pass, without dropout.

        batch_size: None is that of the training. most: training rows, drawn at random; None: all of them.
        """


class Method(Options):
    """One fine-tuning method with its options. To add one: a subclass, listed in adept/methods/__init__.py."""

    name: ClassVar[str]
    """What --method, YAML files and records call it."""

    reference: ClassVar[str]
    """Where it is described."""

    rates: ClassVar[Mapping[str, str]] = {}
    """Regex over whole parameter names -> the option that holds this group's peak learning rate.

    Every trained parameter matches exactly one of them.
    """

    evaluation: ClassVar[tuple[str, ...]] = ()
    """Options that change how a trained adapter is evaluated. None, in all of them, evaluates it as it was trained."""

    folds: ClassVar[bool] = False
    """Its offset depends on the token alone, so that --fold can put it into the embedding table."""

    stacks: ClassVar[bool] = False
    """All that it trains lies in its PromptedEmbedding, so several runs can share a model (adept/training/stack.py)."""

    trains_model: ClassVar[bool] = False
    """It trains weights of the model itself."""

    needs_start: ClassVar[bool] = False
    """It goes on from a trained prompt: a run of it needs --init_from."""

    draws_untrained: ClassVar[bool] = False
    """--seed draws a part of it that is neither trained nor saved, so an adapter fits runs of its own seed alone."""

    kinds: ClassVar[tuple[str, ...]] = MODEL_KINDS
    """The kinds of model that it can run on, of MODEL_KINDS (adept/models/families.py)."""

    @property
    def virtual_tokens(self) -> int:
        """Prompt ids that the collator puts in front of each source."""
        return 0

    def adapt(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> nn.Module:
        """apply(), after a check of the model's kind. Raises UserError for a kind that is not in `kinds`."""
        if (kind := model_kind(model)) not in self.kinds:
            raise UserError(
                f"method '{self.name}' runs on {' and '.join(self.kinds)} models; "
                f"{type(model).__name__} is {kind}: choose another --model or --method"
            )
        return self.apply(model, tokenizer)

    def apply(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> nn.Module:
        """Puts the method's parameters into the model, in place.

        model: every parameter is frozen; the method unfreezes what it trains. Returns what the loop trains.
        """
        raise NotImplementedError

    def before_training(self, model: nn.Module, gradients_of: GradientsOf) -> None:
        """Changes the parameters at the start by what the training rows say of them, in place.

        Called once, after --init_from has been read and before the first step; not when a run is resumed. It must draw
        no random numbers, and computing the gradients draws none.
        """

    def extra_loss(self, model: nn.Module) -> Tensor | None:
        """A scalar that is added to the loss of each training batch, whose weights in a step sum to 1; None: nothing.

        Of a method that `stacks` it is not asked for.
        """
        return None

    def adopt(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The weights of the adapter that --init_from names, as the parameters of this method.

        They must then have the parameters' names and shapes. Unchanged where the method does not know them.
        """
        return weights

    def count_trained(self, model: nn.Module) -> int:
        """How many numbers are trained. model: with the method in place, with or without values."""
        return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

    def learning_rates(self) -> dict[str, float]:
        """{regex over parameter names: peak rate} of the parameter groups that these options give rise to."""
        return {pattern: getattr(self, option) for pattern, option in self.rates.items()}

    def with_source_length(self, max_source_len: int) -> Self:
        """The method with those defaults filled in that depend on the run's longest source."""
        return self
