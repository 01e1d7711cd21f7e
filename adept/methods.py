"""A method is a row: how it adapts the model, which parameters it trains at which rate, which fields it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adept.config import RunConfig, UserError, nearest

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROMPT_FIELDS = ("prompt_len", "prompt_init", "prompt_init_vocab", "prompt_init_text")
PROMPT_RATE = {r".*\.prompt": "prompt_lr"}
OFFSET_RATE = {r".*\.offset\..*": "offset_lr"}


@dataclass(frozen=True)
class Method:
    """One fine-tuning method.

    apply: (model with every parameter frozen, tokenizer, config) -> what the loop trains, unfreezing what the method trains.
    lrs: fullmatch regex over parameter names -> RunConfig field with that group's peak rate; a partition of the trainables.
    uses: further RunConfig fields that the method reads; all other methods' fields are refused on the command line.
    evaluation: RunConfig fields that change how a trained adapter is evaluated; None, in all of them, is as it was trained.
    virtual_prompt: the collator prepends cfg.prompt_len ids.
    folds: its offset depends on the token alone, so that --fold can put it into the embedding table.
    trains_model: it trains weights of the model itself.
    stacks: all that it trains lies in its PromptedEmbedding, so that several runs can share one model (adept/step.py).
    """

    apply: Callable[[PreTrainedModel, PreTrainedTokenizerBase, RunConfig], nn.Module]
    lrs: Mapping[str, str]
    uses: tuple[str, ...] = ()
    evaluation: tuple[str, ...] = ()
    virtual_prompt: bool = False
    folds: bool = False
    stacks: bool = False
    trains_model: bool = False

    @property
    def required(self) -> tuple[str, ...]:
        """RunConfig fields that this method cannot do without."""
        return (*self.uses, *dict.fromkeys(self.lrs.values()), *(("steps",) if self.lrs else ()))

    @property
    def fields(self) -> tuple[str, ...]:
        """All RunConfig fields that only some methods read, and this one does."""
        return (*self.required, *self.evaluation)

    def rates(self, config: RunConfig) -> dict[str, str]:
        """`lrs` of the parts that this run has: without prompt tokens there is no prompt to have a rate (Table 14)."""
        return {pattern: field for pattern, field in self.lrs.items() if config.prompt_len or field != "prompt_lr"}

    def check(self, config: RunConfig) -> None:
        """Raises UserError where fields that are right alone contradict each other."""
        if self.virtual_prompt and not config.prompt_len and "bottleneck" not in self.uses:
            raise UserError(
                f"--prompt_len must be >= 1 for method '{config.method}': without a prompt nothing is left of it (only adept runs with 0)"
            )
        for name in self.evaluation:
            if getattr(config, name) is not None and (config.steps or config.init_from is None):
                raise UserError(f"--{name} changes how a trained adapter is evaluated: it needs --init_from RUN_ID and --steps 0")
        if config.fold and not self.folds:
            known = ", ".join(name for name, row in METHODS.items() if row.folds)
            raise UserError(f"--fold has no effect on method '{config.method}', which has no token-shared offset; {known} fold")


# Prompt methods ---------------------------------------------------------------------------------------------------------


def prompted(make_offset: Callable | None = None, *, train_table: bool = False):
    """apply() of a method that lives in the input embedding; make_offset(width, config) -> offset module."""

    def apply(model, tokenizer, config):
        from adept import embedding, models

        owner = models.input_embedding_owner(model)
        base = owner.get_input_embeddings()
        width, table = base.embedding_dim, base.weight
        match config.prompt_init:
            case "vocab":
                prompt = embedding.prompt_from_vocab(table, config.prompt_len, config.prompt_init_vocab)
            case "text":
                if not (ids := tokenizer(config.prompt_init_text).input_ids):
                    raise UserError(f"--prompt_init_text {config.prompt_init_text!r} has no tokens to start the prompt from")
                prompt = embedding.prompt_from_ids(table, config.prompt_len, ids)
            case "random":
                prompt = embedding.prompt_random(table, config.prompt_len)
        offset = make_offset(width, config).to(table.device) if make_offset else None
        owner.set_input_embeddings(embedding.PromptedEmbedding(base, prompt, offset, use_offset=not config.without_offset))
        if train_table:
            table.requires_grad_(True)
        return model

    return apply


def token_offset(width: int, config: RunConfig) -> nn.Module:
    from adept.embedding import TokenOffset

    return TokenOffset(width, config.bottleneck, dropout=config.bottleneck_dropout, init=config.bottleneck_init)


def position_offset(width: int, config: RunConfig) -> nn.Module:
    from adept.embedding import PositionOffset

    return PositionOffset(
        width, config.offset_len, config.rank, prompt_len=config.prompt_len, alpha=config.offset_alpha, shift=config.offset_shift or 0
    )


def relu_offset(width: int, config: RunConfig) -> nn.Module:
    from adept.embedding import TokenOffset

    return TokenOffset(width, config.rank, bias=False)


# Methods inside the model -----------------------------------------------------------------------------------------------


def frozen(model, tokenizer, config):
    return model


def full(model, tokenizer, config):
    return model.requires_grad_(True)


def peft_library(make_config: Callable):
    """apply() of a method of the PEFT library; make_config(model, config) -> peft.PeftConfig."""

    def apply(model, tokenizer, config):
        import peft

        return peft.get_peft_model(model, make_config(model, config))

    return apply


def lora_config(model, config: RunConfig):
    import peft

    from adept.models import attention_projections

    return peft.LoraConfig(
        r=config.rank, lora_alpha=config.lora_alpha, lora_dropout=config.lora_dropout, target_modules=attention_projections(model)
    )


METHODS: dict[str, Method] = {
    "zero_shot": Method(apply=frozen, lrs={}),
    "full": Method(apply=full, lrs={r".*": "lr"}, trains_model=True),
    "lora": Method(apply=peft_library(lora_config), lrs={r".*\.lora_[AB]\..*": "lr"}, uses=("rank", "lora_alpha", "lora_dropout")),
    "pt": Method(apply=prompted(), lrs=PROMPT_RATE, uses=PROMPT_FIELDS, virtual_prompt=True, stacks=True),
    "dept": Method(
        apply=prompted(position_offset),
        lrs=PROMPT_RATE | OFFSET_RATE,
        uses=(*PROMPT_FIELDS, "rank", "offset_len", "offset_alpha"),
        evaluation=("offset_shift", "without_offset"),
        virtual_prompt=True,
        stacks=True,
    ),
    "adept": Method(
        apply=prompted(token_offset),
        lrs=PROMPT_RATE | OFFSET_RATE,
        uses=(*PROMPT_FIELDS, "bottleneck", "bottleneck_init", "bottleneck_dropout"),
        evaluation=("without_offset",),
        virtual_prompt=True,
        folds=True,
        stacks=True,
    ),
    # What the released code runs under the names of its baselines (discrepancies f-7 and f-8 of the protocol notes).
    "pt_table": Method(
        apply=prompted(train_table=True),
        lrs=PROMPT_RATE | {r"(?!.*\.prompt).*": "lr"},
        uses=PROMPT_FIELDS,
        virtual_prompt=True,
        trains_model=True,
    ),
    "dept_relu": Method(
        apply=prompted(relu_offset),
        lrs=PROMPT_RATE | OFFSET_RATE,
        uses=(*PROMPT_FIELDS, "rank"),
        evaluation=("without_offset",),
        virtual_prompt=True,
        folds=True,
        stacks=True,
    ),
}


def method_specific_fields() -> set[str]:
    """RunConfig fields that some methods read and others do not."""
    return {name for row in METHODS.values() for name in row.fields}


def find_method(name: str) -> Method:
    """The row, or UserError naming the nearest."""
    if name not in METHODS:
        raise UserError(f"unknown method '{name}'; {nearest(name, METHODS)}")
    return METHODS[name]
