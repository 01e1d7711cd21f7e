"""The same training by PEFT and transformers' Trainer: what a user has without this project.

Rows, batch sizes, optimizer, schedule and precision are those of our run. Batches hold rows of similar length and are
padded to their longest row, both of which the Trainer does when it is told to.
"""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from adept.base.errors import UserError, nearest
from adept.bench.contestants import Contestant
from adept.bench.released import labels_at_every_position
from adept.config.run import RunConfig
from adept.data.codec import Codec
from adept.data.example import Example
from adept.models.families import peft_task_type
from adept.models.loading import copy_sharing_parameters
from adept.training.session import Session, open_session_on

# The model ------------------------------------------------------------------------------------------------------------


def prompt_tuning(config: RunConfig, model: nn.Module, tokenizer: object) -> nn.Module:
    """PEFT's prompt tuning on the model, with a random prompt."""
    import peft

    # PEFT's default for an encoder-decoder is a second prompt for the decoder.
    options = {"num_virtual_tokens": config.prompt_len, "num_transformer_submodules": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(model, peft.PromptTuningConfig(task_type=peft_task_type(model), **options))


def own_lora(config: RunConfig, model: nn.Module, tokenizer: object) -> nn.Module:
    """Our LoRA is PEFT's."""
    return config.method_options.apply(model, tokenizer)


PEFT_METHODS: Mapping[str, Callable[[RunConfig, nn.Module, object], nn.Module]] = {
    "pt": prompt_tuning,
    "lora": own_lora,
}
"""By our method's name."""


def check_method(config: RunConfig) -> None:
    """Raises UserError for a method that is not compared with PEFT's."""
    if config.method not in PEFT_METHODS:
        raise UserError(
            f"the Trainer is compared on {', '.join(PEFT_METHODS)}, not on '{config.method}'; "
            f"{nearest(config.method, PEFT_METHODS)}"
        )


def peft_model(config: RunConfig, model: nn.Module, tokenizer: object) -> nn.Module:
    """The model with the run's method as PEFT has it. Raises UserError for a method that is not compared."""
    check_method(config)
    return PEFT_METHODS[config.method](config, model, tokenizer)


def copy_prompt(prompt: Tensor, model: nn.Module) -> None:
    """Starts PEFT's prompt from these rows [m, D], in place."""
    (table,) = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        table.copy_(prompt)


# The trainer ----------------------------------------------------------------------------------------------------------


def feature(example: Example) -> dict[str, Any]:
    """A row as a data set of the Trainer holds it, which sorts rows by their "input_ids"."""
    return {"input_ids": example.source_ids, "example": example}


def collate(codec: Codec, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """A batch padded to its longest row, with labels as transformers takes them. PEFT puts the prompt in front."""
    return labels_at_every_position(codec.train_batch([row["example"] for row in features]))


def make_trainer(
    config: RunConfig,
    model: nn.Module,
    codec: Codec,
    rows: Sequence[Example],
    folder: str,
    *,
    grouped: bool = True,
    validation: Sequence[Example] | None = None,
    **arguments: Any,
):
    """A transformers Trainer for --steps on these rows.

    codec: trainer_codec(). folder: for its files. grouped: batches hold rows of similar length, else the rows as they
    come. arguments: further ones of TrainingArguments.
    """
    import transformers

    options = transformers.TrainingArguments(
        output_dir=folder,
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.eval_batch_size,
        gradient_accumulation_steps=config.grad_accum,
        train_sampling_strategy="group_by_length" if grouped else "sequential",
        learning_rate=next(iter(config.method_options.learning_rates().values())),
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        adam_beta1=config.beta1,
        adam_beta2=config.beta2,
        adam_epsilon=config.eps,
        max_grad_norm=config.max_grad_norm,
        bf16=config.precision == "bf16",
        seed=config.seed,
        use_cpu=config.device == "cpu",
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        disable_tqdm=True,
        logging_steps=config.log_every,
        **{"save_strategy": "no", **arguments},
    )
    trainer = transformers.Trainer(
        model=model,
        args=options,
        train_dataset=[feature(row) for row in rows],
        eval_dataset=None if validation is None else [feature(row) for row in validation],
        data_collator=partial(collate, codec),
        preprocess_logits_for_metrics=likeliest_tokens,
        compute_metrics=share_of_right_rows,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def likeliest_tokens(logits: Tensor, labels: Tensor) -> Tensor:
    """[B, T]: all that share_of_right_rows() needs of the logits [B, T, V]."""
    return logits.argmax(-1)


def share_of_right_rows(evaluated: Any) -> dict[str, float]:
    """{"accuracy": percent of the rows whose target tokens are all the likeliest ones}, of a causal model.

    Position t predicts label t + 1; PEFT's prompt stands before the labels' positions.
    """
    labels = torch.from_numpy(evaluated.label_ids)
    predicted = torch.from_numpy(evaluated.predictions)[:, -labels.shape[1] :]
    right = (predicted[:, :-1] == labels[:, 1:]) | (labels[:, 1:] < 0)
    return {"accuracy": 100 * right.all(1).double().mean().item()}


# A contestant ---------------------------------------------------------------------------------------------------------


def open_trainer_session(config: RunConfig, model: nn.Module, tokenizer: object) -> Session:
    """A session whose model is PEFT's and whose codec makes batches for it; the prompt starts as in our session.

    The model's frozen weights are shared with `model`.
    """
    check_method(config)
    session = open_session_on(config, copy_sharing_parameters(model), tokenizer)
    adapted = session.model
    if (hook := session.prompted_embedding) is not None:
        adapted = peft_model(config, copy_sharing_parameters(model), tokenizer)
        copy_prompt(hook.prompt, adapted)
    return dataclasses.replace(session, model=adapted, codec=trainer_codec(session.codec))


def trainer_codec(codec: Codec) -> Codec:
    """Without prompt ids, which PEFT's models do not take, and with batches as wide as their longest row."""
    return dataclasses.replace(codec, prompt_ids=(), multiple=1)


class TrainerContestant(Contestant):
    """PEFT and the Trainer in place of our model and our step."""

    def __post_init__(self):  # the Trainer has an optimizer of its own
        pass

    def train(self, batches: list[list[int]] | None = None) -> None:
        numbers = batches or self.batches
        rows = [self.examples[i] for batch in numbers for i in batch]
        config = self.session.config.replace(steps=len(numbers), batch_size=len(numbers[0]), warmup_steps=0)
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(
                config, self.session.model, self.session.codec, rows, folder, grouped=False, logging_strategy="no"
            )
            trainer.train()

    def lengths(self) -> tuple[int, int, list[tuple[int, int]]]:
        cells, tokens, row_lengths = super().lengths()
        prompt = self.session.method.virtual_tokens
        more = prompt * len(row_lengths)
        return cells + more, tokens + more, [(source + prompt, target) for source, target in row_lengths]
