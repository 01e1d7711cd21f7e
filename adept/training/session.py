"""A session: a model adapted by a method, with the codec of its task, on its device. Nothing of optimisation."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from adept.base import distributed
from adept.base.errors import UserError, first_line
from adept.config.combinations import check_combination
from adept.config.run import RunConfig, task_of
from adept.data.codec import Codec, check_labels
from adept.methods.embedding import PromptedEmbedding
from adept.methods.method import Method
from adept.models.capabilities import Capabilities, capabilities_of
from adept.models.families import table_rows
from adept.models.generation import neutral_generation_config
from adept.models.loading import copy_sharing_parameters, load_model, weights_digest
from adept.models.precision import tf32_products
from adept.models.recompute import checkpoint_blocks, transformer_blocks
from adept.tasks.task import Task
from adept.training.losses import BatchLosses, batch_losses, compiled_batch_losses

FREE_TEXT_LEN = 20
"""Target tokens with EOS where there are no labels (released code)."""


@dataclass
class Session:
    """A model adapted by a method, ready to train, evaluate or predict."""

    config: RunConfig
    task: Task
    model: nn.Module
    codec: Codec
    device: torch.device
    batch_losses: BatchLosses
    capabilities: Capabilities
    base_weights: str | None = None
    """weights_digest() of the model before the method was applied."""

    @property
    def method(self) -> Method:
        """The fine-tuning method with its options."""
        return self.config.method_options

    @property
    def trainables(self) -> dict[str, nn.Parameter]:
        """{name: parameter} of what is trained."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def param_counts(self) -> tuple[int, int]:
        """(trained, total): how many numbers the method trains, and how many the adapted model has."""
        return self.method.count_trained(self.model), sum(p.numel() for p in self.model.parameters())

    @functools.cached_property
    def prompted_embedding(self) -> PromptedEmbedding | None:
        """The hook in the input embedding; None where the method has none."""
        return next((m for m in self.model.modules() if isinstance(m, PromptedEmbedding)), None)

    @property
    def made_prompt(self) -> Tensor | None:
        """[m, D]: the prompt that the method makes of other parameters; None where it makes none.

        Nor is there one where each row has its own.
        """
        hook = self.prompted_embedding
        if hook is None or hook.source is None or hook.depends_on_row:
            return None
        return hook.prompt_table().detach()

    @property
    def shared_prefix(self) -> int:
        """The length of a prompt whose keys and values are the same in all training rows; 0 where there is none.

        A sharded model computes the prompt with every row, because FSDP gathers a block's weights for the gradient of
        its output, not of its cache.
        """
        hook = self.prompted_embedding
        of_row = hook is not None and hook.depends_on_row
        shared = self.capabilities.has_key_cache and not self.config.shard_model and not of_row
        return len(self.codec.prompt_ids) if shared else 0

    def precision(self) -> contextlib.AbstractContextManager:
        """Inside, fp32 products are computed in tf32 where --precision says so, and exactly where it does not.

        A step of training needs it in its backward pass, too; autocast() brings it to a forward pass.
        """
        return tf32_products(self.config.precision == "tf32")

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Inside, the model computes in the run's precision."""
        enabled = self.config.precision == "bf16"
        with self.precision(), torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            yield


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the GPU where there is one.

    Raises UserError for a device that cannot compute here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # "meta" makes tensors too, but without values
    except (RuntimeError, AssertionError, ImportError) as error:
        raise UserError(
            f"--device {name} cannot be used here: {first_line(error, 100)}; --device auto takes what there is"
        ) from error
    return device


def seed_everything(seed: int) -> None:
    """Seeds the generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


# Opening --------------------------------------------------------------------------------------------------------------


def open_session(config: RunConfig) -> Session:
    """Loads the model, applies the method (seeded) and moves it to its device.

    Raises UserError for what cannot be loaded or does not fit together.
    """
    (session,) = open_sessions([config])
    if isinstance(session, UserError):
        raise session
    return session


def open_sessions(configs: Sequence[RunConfig]) -> list[Session | UserError]:
    """Sessions of runs of one model, which is loaded once.

    Each session has its own copy of the modules and shares the frozen weights. A run whose method cannot be applied
    gets a UserError in place of its session.

    Raises UserError for a model that cannot be loaded.
    """
    first = configs[0]
    for config in configs:
        check_combination(config, task_of(config))
        check_start(config)
        check_processes(config)
    pick_device(first.device)  # before gigabytes are read
    model, tokenizer = load_model(
        first.model, revision=first.model_revision, precision=first.precision, dropout=first.model_dropout
    )
    model.generation_config = neutral_generation_config(model, tokenizer)
    capabilities = capabilities_of(model)
    base_weights = weights_digest(model)
    copies = [model, *(copy_sharing_parameters(model) for _ in configs[1:])]
    # Two passes: weights are rounded to bf16 only after every method has seen them as they were.
    adapted = [
        value_or_user_error(apply_method, config, own, tokenizer, capabilities)
        for config, own in zip(configs, copies, strict=True)
    ]
    return [
        own
        if isinstance(own, UserError)
        else value_or_user_error(prepare_model, config, own, tokenizer, capabilities, None, base_weights)
        for config, own in zip(configs, adapted, strict=True)
    ]


def value_or_user_error(function, *arguments):
    """What the function returns, or the UserError that it raises."""
    try:
        return function(*arguments)
    except UserError as error:
        return error


def open_session_on(config: RunConfig, model: nn.Module, tokenizer, device: torch.device | None = None) -> Session:
    """open_session() with a model and a tokenizer that are loaded already.

    Every parameter of the model is frozen, and the model is changed in place. device: in place of the config's.
    """
    model.generation_config = neutral_generation_config(model, tokenizer)
    capabilities, base_weights = capabilities_of(model), weights_digest(model)
    adapted = apply_method(config, model, tokenizer, capabilities)
    return prepare_model(config, adapted, tokenizer, capabilities, device, base_weights)


def check_start(config: RunConfig) -> None:
    """Raises UserError where a method goes on from a trained prompt and there is none."""
    if config.method_options.needs_start and config.init_from is None:
        raise UserError(
            f"method '{config.method}' goes on from a trained prompt: --init_from must name the run that trained it, "
            "one of method pt for example"
        )


def check_processes(config: RunConfig) -> None:
    """Raises UserError for what cannot be done in this number of processes."""
    if distributed.WORLD > 1 and ":" in config.device:
        raise UserError(
            f"--device {config.device} is one device, but torchrun started {distributed.WORLD} processes: "
            "--device cuda gives each its own"
        )
    if config.shard_model and distributed.WORLD == 1:
        raise UserError(
            "--shard_model shares the model out over several processes: torchrun --nproc_per_node 2 train.py ..."
        )
    if config.shard_model and config.method_options.trains_model:
        raise UserError(f"--shard_model shares out frozen weights, but method '{config.method}' trains the model's own")


def require_code_permission(config: RunConfig, task: Task) -> None:
    """Raises UserError where scoring would run programs that nobody permitted."""
    if task.runs_code and not config.allow_code_execution:
        raise UserError(
            f"task '{task.name}' is scored by running programs that a model wrote: add --allow_code_execution to "
            "permit it (adept/metrics/sandbox confines them)"
        )


def apply_method(config: RunConfig, model: nn.Module, tokenizer, capabilities: Capabilities) -> nn.Module:
    """Seeds all random generators and puts the method's parameters into the frozen model.

    Raises UserError where task and model, or method and model, do not fit.
    """
    task = task_of(config)
    if task.decoder_only and not capabilities.continues_source:
        raise UserError(f"task '{task.name}' needs a decoder-only model, such as --model codegen-350m")
    seed_everything(config.seed)
    return config.method_options.adapt(model, tokenizer)


def prepare_model(
    config: RunConfig,
    model: nn.Module,
    tokenizer,
    capabilities: Capabilities,
    device: torch.device | None = None,
    base_weights: str | None = None,
) -> Session:
    """Casts the adapted model to its precision, moves it to its device, and adds the codec of its task.

    capabilities, base_weights: of the model as it was loaded.
    """
    device = device or pick_device(config.device)
    if config.precision == "bf16":
        for parameter in model.parameters():  # not model.to(): buffers such as rotary frequencies need their digits
            parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else torch.bfloat16)
    if config.checkpoint_activations:
        checkpoint_blocks(model)
    if config.shard_model:
        distributed.shard_blocks(model, transformer_blocks(model), device)
    model.to(device)
    task = task_of(config)
    codec = make_codec(config, task, model, tokenizer, capabilities)
    eager_on_cpu = device.type == "cpu" and not config.compile  # gains nothing from few shapes
    if eager_on_cpu or not capabilities.ignores_left_padding:
        codec = dataclasses.replace(codec, multiple=1)
    answer_len = max(codec.max_target_len, config.max_new_tokens or 0)
    capabilities.check_positions(len(codec.prompt_ids), config.max_source_len, answer_len)
    losses = compiled_batch_losses() if config.compile else batch_losses
    session = Session(config, task, model, codec, device, losses, capabilities, base_weights)
    if (hook := session.prompted_embedding) is not None:
        hook.returns = torch.bfloat16 if config.precision == "bf16" else None
    return session


def make_codec(config: RunConfig, task: Task, model: nn.Module, tokenizer, capabilities: Capabilities) -> Codec:
    """The codec of a task for a model with its method in place.

    Raises UserError for labels that the model's tokenizer cannot tell apart or write, or whose tokens the model lacks.
    """
    source_rows, target_rows = table_rows(model)
    codec = Codec(
        tokenizer=tokenizer,
        encoder_decoder=capabilities.encoder_decoder,
        prompt_ids=tuple(range(source_rows, source_rows + config.method_options.virtual_tokens)),
        max_source_len=config.max_source_len,
        max_target_len=config.max_target_len or FREE_TEXT_LEN,
        cue=task.cue,
        cut_references=task.cut_references,
        table_rows=(source_rows, target_rows),
        clean_up=config.decoding == "transformers4",
    )
    if task.labels is None:
        return codec
    if config.max_target_len is None:
        longest = max(len(codec.text_ids(label)) for label in task.labels)
        codec = dataclasses.replace(codec, max_target_len=longest + 1)
    for label in task.labels:  # one that no row has is scored, too
        codec.check_ids((), codec.target_ids(label))
    check_labels(codec, task.labels)
    return codec
