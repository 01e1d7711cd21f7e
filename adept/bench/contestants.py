"""A contestant is a model in one style, with its sessions, optimizers and measured batches."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from adept.bench.profiles import PROFILES, STYLES, Style
from adept.bench.released import released_predict, use_released_way
from adept.bench.synthetic import DigitTokenizer, set_short_answer_head
from adept.config.layers import resolve
from adept.config.run import METHOD_OPTIONS, RunConfig
from adept.data.batches import Batch, batch_indices, make_batch, prefetch
from adept.data.example import Example
from adept.methods import find_method
from adept.models.families import BUNDLED
from adept.models.loading import copy_sharing_parameters, load_model, patch_attention_and_dropout, random_model
from adept.training.evaluation import predict
from adept.training.optim import make_optimizer, parameter_groups
from adept.training.session import Session, open_session_on
from adept.training.stack import Stack
from adept.training.step import StepInput, train_step

BATCHES = 5
"""The number of measured batches. They have different widths and represent an epoch."""


@dataclass
class Contestant:
    """One style of one model on the rows of one profile."""

    sessions: Sequence[Session]  # of the runs that the style stacks
    style: Style
    examples: list[Example]
    batches: list[list[int]]  # the measured batches: numbers of `examples`

    def __post_init__(self):
        rates = self.session.method.learning_rates()
        self.optimizers = [make_optimizer(parameter_groups(s.model, rates), s.config) for s in self.sessions]
        self.stack = Stack(self.sessions)

    @property
    def session(self) -> Session:
        """The session of the first run."""
        return self.sessions[0]

    def train(self, batches: list[list[int]] | None = None) -> None:
        """Trains each run by one optimizer step on each of `batches`, by default on each of the measured batches."""

        def make_run_batches(numbers: list[int]) -> list[Batch]:
            examples = [self.examples[i] for i in numbers]
            return [make_batch(session.codec, examples) for session in self.sessions]

        self.session.model.train()
        for run_batches in prefetch(make_run_batches, batches or self.batches, 2):
            inputs = [
                StepInput(session, optimizer, (batch,), 0.0)
                for session, optimizer, batch in zip(self.sessions, self.optimizers, run_batches, strict=True)
            ]
            steps = train_step(inputs, self.stack)
            if self.style.released:
                steps[0].loss.item()  # transformers' Trainer checks that each loss is finite

    def predict(self, examples: list[Example]) -> list[str]:
        """The predicted strings of the first run, in the order of the examples."""
        return released_predict(self.session, examples) if self.style.released else predict(self.session, examples)

    def lengths(self) -> tuple[int, int, list[tuple[int, int]]]:
        """Sizes of the measured batches: (cells, cells that are not padding, lengths of each row).

        A row's lengths are its tokens of prompt and source together, and its target tokens.
        """
        codec = self.session.codec
        cells = tokens = 0
        row_lengths = []
        for numbers in self.batches:
            examples = [self.examples[i] for i in numbers]
            mask = codec.train_batch(examples)["attention_mask"]
            cells, tokens = cells + mask.numel(), tokens + int(mask.sum())
            row_lengths += [(len(codec.prompt_ids) + len(e.source_ids), len(e.target_ids)) for e in examples]
        return cells, tokens, row_lengths


def representative_batches(examples: list[Example], config: RunConfig, count: int = BATCHES) -> list[list[int]]:
    """`count` batches that represent an epoch, as numbers of `examples`.

    An epoch's full batches are sorted by width and cut into `count` equal parts; the middle batch of each part is
    taken.
    """
    lengths = [example.length for example in examples]
    order = batch_indices(lengths, config.batch_size, config.seed, group_by_length=config.group_by_length)
    epoch = list(itertools.islice(order, -(-len(examples) // config.batch_size)))
    full = [batch for batch in epoch if len(batch) == config.batch_size]
    full.sort(key=lambda batch: max(lengths[i] for i in batch))
    return [full[int((k + 0.5) * len(full) / count)] for k in range(count)]


def load_base_model(name: str, device: torch.device) -> tuple[nn.Module, object]:
    """(a model with the arithmetic of transformers, its tokenizer).

    The bundled model has its real weights, any other random ones in its true shape.
    """
    if name == BUNDLED:
        return load_model(name)
    return set_short_answer_head(random_model(name, device)), DigitTokenizer()


def style_config(style: str, profile: str, name: str, device: str, method: str = "adept", **fields) -> RunConfig:
    """The options of a style's runs on a profile.

    fields: RunConfig fields that take precedence over those of the profile and of the style. Those of the profile that
    the method does not have are left out.
    """
    setup = PROFILES[profile]
    own = find_method(method).own_options()
    of_profile = {key: value for key, value in setup.fields.items() if key not in METHOD_OPTIONS or key in own}
    common = {"task": setup.task or profile, "model": name, "device": device, "method": method}
    sizes = {"batch_size": 32, "grad_accum": 1}
    return resolve({**common, **sizes, **of_profile, **STYLES[style].fields, **fields})


def open_style_sessions(
    style: str, model: nn.Module, tokenizer: object, profile: str, name: str, device: str, **fields
) -> list[Session]:
    """Opens the sessions of the runs that a style stacks, on copies of `model` that share its weights except in bf16.

    fields: of style_config().
    """
    chosen_style, config = STYLES[style], style_config(style, profile, name, device, **fields)
    shares = config.precision != "bf16"  # opening a session in bf16 rounds the weights in place
    shared = {id(parameter): parameter for parameter in model.parameters()} if shares else {}
    model = copy.deepcopy(model, shared)
    if chosen_style.released:
        return [use_released_way(open_session_on(config, model, tokenizer))]
    patch_attention_and_dropout(model)
    copies = [copy_sharing_parameters(model) for _ in range(chosen_style.runs)]
    return [open_session_on(config, run_model, tokenizer) for run_model in copies]
