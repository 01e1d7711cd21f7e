"""Many adapters on one frozen model: each row of a batch has its own prompt and offset."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from adept.base.errors import UserError, nearest
from adept.config.identities import base_identity
from adept.config.run import RunConfig, task_of
from adept.data.example import Example
from adept.methods import METHODS
from adept.methods.method import Method
from adept.models.capabilities import capabilities_of
from adept.models.computed_prompt import ComputedPrompt, join_prompts
from adept.models.families import input_embedding_owner
from adept.models.generation import neutral_generation_config
from adept.models.loading import load_model, weights_digest
from adept.runs.adapter import find_adapter
from adept.serving.load import Answer, TrainedSession, answering, config_with, restored
from adept.serving.rendering import Source
from adept.training.evaluation import (
    computed_prompt,
    evaluating,
    generated_ids,
    in_batches,
    label_log_probabilities,
    longest_answer,
    max_new_tokens,
)
from adept.training.session import Session, apply_method, pick_device, prepare_model
from adept.training.stack import StackedEmbedding

T = TypeVar("T")
Batch = dict[str, Tensor]
Prompts = ComputedPrompt | None
Request = tuple[str, Source]
"""(the run that is asked, what it is asked)."""

UNUSED_IN_A_BANK = {"checkpoint_activations": False, "compile": False, "shard_model": False}
"""Options of training."""


@dataclass(frozen=True)
class BankRow:
    """One encoded request. run: the number of the run's hook."""

    run: int
    session: TrainedSession
    example: Example


class Bank:
    """Trained runs that share one frozen model and are asked in one batch.

    Each row of a batch passes through the prompt and the offset of its own run; a run costs no more memory than what it
    trained and, from its first request on, its prompt's keys and values. ADePT's networks stay networks, so --fold has
    no effect here. Answers and probabilities are those of each run alone, up to rounding.
    """

    def __init__(self, names: Sequence[str], *, results_dir: str = "results", **overrides: Any):
        """names: run ids under results_dir, or adapter folders. overrides: options to change, as for load().

        Raises UserError for a run that cannot be read, one whose method changes more than the model's input, one that
        draws samples, and for runs of different base models or precisions.
        """
        folders = {name: find_adapter(name, results_dir) for name in names}
        configs = {name: config_with(folder, overrides) for name, folder in folders.items()}
        require_bankable(configs)
        first = next(iter(configs.values()))
        pick_device(first.device)  # before gigabytes are read
        model, tokenizer = load_model(first.model, revision=first.model_revision, precision=first.precision)
        self.share(configs, model, tokenizer, folders)

    @classmethod
    def on_model(cls, configs: Mapping[str, RunConfig], model: Any, tokenizer: Any) -> Bank:
        """A bank of untrained runs, {name: configuration}, on a model that is loaded and frozen. It is changed in
        place.
        """
        bank = cls.__new__(cls)
        bank.share(configs, model, tokenizer, {})
        return bank

    def share(self, configs: Mapping[str, RunConfig], model: Any, tokenizer: Any, folders: Mapping[str, Path]) -> None:
        """Opens a session for each run, all on this model, and puts their embeddings side by side into it."""
        device = next(iter(configs.values())).device
        configs = {name: config.replace(device=device, **UNUSED_IN_A_BANK) for name, config in configs.items()}
        model.generation_config = neutral_generation_config(model, tokenizer)
        capabilities, base_weights = capabilities_of(model), weights_digest(model)
        owner = input_embedding_owner(model)
        base = owner.get_input_embeddings()
        hooks = []
        # Two passes: weights are rounded to bf16 only after every method has seen them as they were.
        for config in configs.values():
            apply_method(config, model, tokenizer, capabilities)
            hooks.append(owner.get_input_embeddings())  # the bare embedding where the method has no hook
            owner.set_input_embeddings(base)
        self._sessions: dict[str, TrainedSession] = {}  # private: their model is that of all runs
        for (name, config), hook in zip(configs.items(), hooks, strict=True):
            owner.set_input_embeddings(hook)
            session = prepare_model(config, model, tokenizer, capabilities, None, base_weights)
            self._sessions[name] = restored(session, folders[name]) if name in folders else answering(session)
        self.embedding = StackedEmbedding(hooks)
        self.embedding.blocks = []  # a forward pass outside blocks_of() fails
        owner.set_input_embeddings(self.embedding)
        self.numbers = {name: number for number, name in enumerate(self._sessions)}
        self.prompts: dict[int, ComputedPrompt | None] = {}
        """By run; None where rows have none in common or the model needs it in each."""

    # Questions

    def answer(self, requests: Sequence[Request], beams: int = 1) -> list[str]:
        """The predicted string of each (run, source). beams: of a search in place of greedy decoding.

        A source is a row of the columns of its run's task, or a text. Raises UserError for what is none, and for a run
        that the bank does not hold.
        """
        return [answer.text for answer in self.answers(requests, beams)]

    def label_probabilities(self, requests: Sequence[Request]) -> list[dict[str, float]]:
        """{label: probability among the labels} of each (run, source).

        Raises UserError where a run's task has no labels, and as answer() does.
        """
        rows = self.encode(requests)
        scores = self.label_scores(rows)
        return [row.session.probabilities(own) for row, own in zip(rows, scores, strict=True)]

    def answers(self, requests: Sequence[Request], beams: int = 1, *, probabilities: bool = False) -> list[Answer]:
        """The answer to each request, as TrainedSession.answers() has it."""
        rows = self.encode(requests)
        likelihood = [row.session.config.scoring == "likelihood" for row in rows]
        scored = [i for i in range(len(rows)) if likelihood[i] or probabilities]
        generated = [i for i in range(len(rows)) if not likelihood[i]]
        scores = dict(zip(scored, self.label_scores([rows[i] for i in scored]), strict=True))
        texts = dict(zip(generated, self.generate([rows[i] for i in generated], beams), strict=True))
        answers = []
        for i, row in enumerate(rows):
            if likelihood[i]:
                answers.append(row.session.most_likely(scores[i]))
            else:
                answers.append(Answer(texts[i], row.session.probabilities(scores[i]) if probabilities else None))
        return answers

    def encode(self, requests: Sequence[Request]) -> list[BankRow]:
        """The requests as token ids, each by its run's task and codec."""
        rows: dict[int, BankRow] = {}
        for name in dict.fromkeys(name for name, _ in requests):
            if name not in self._sessions:
                raise UserError(f"no run '{name}' was loaded; {nearest(name, self._sessions)}")
            session, numbers = self._sessions[name], [i for i, (run, _) in enumerate(requests) if run == name]
            examples = [Example(str(i), session.render(i, requests[i][1]), "", ()) for i in numbers]
            for i, example in zip(numbers, session.codec.encode(examples), strict=True):
                rows[i] = self.row(name, example)
        return [rows[i] for i in range(len(requests))]

    def row(self, name: str, example: Example) -> BankRow:
        """An encoded source as a request to the run."""
        return BankRow(self.numbers[name], self._sessions[name], example)

    def generate(self, rows: Sequence[BankRow], beams: int = 1) -> list[str]:
        """The generated answer of each row. Rows whose runs generate equally many tokens share batches."""

        def decode(session: Session, batch: Batch, own: Sequence[BankRow], prompts: Prompts) -> list[str]:
            ids = generated_ids(session, batch, beams, prompts)
            return [row.session.codec.text(answer) for row, answer in zip(own, ids, strict=True)]

        return self.in_batches(rows, decode, [max_new_tokens(row.session) for row in rows])

    def label_scores(self, rows: Sequence[BankRow]) -> list[list[float]]:
        """The log-probability of each label of each row's task. Rows of the same labels share batches."""

        def decode(session: Session, batch: Batch, own: Sequence[BankRow], prompts: Prompts) -> list[list[float]]:
            return label_log_probabilities(session, batch, prompts).tolist()

        labels: dict[int, tuple[tuple[int, ...], ...]] = {}  # by run, the token ids of its labels
        for run, session in {row.run: row.session for row in rows}.items():
            session.require_labels()
            labels[run] = tuple(tuple(session.codec.target_ids(label)) for label in session.task.labels)
        return self.in_batches(rows, decode, [labels[row.run] for row in rows], count_answers=len)

    @torch.no_grad()
    def in_batches(
        self,
        rows: Sequence[BankRow],
        decode: Callable[[Session, Batch, Sequence[BankRow], Prompts], list[T]],
        kinds: Sequence[Any],
        count_answers: Callable[[Any], int] = lambda _: 1,
    ) -> list[T]:
        """What decode(session, batch, its rows, their prompts) makes of each row; only rows of one kind share a batch.

        count_answers(kind): the answers that each row of a kind is scored with.
        """
        results: dict[int, T] = {}
        for kind in dict.fromkeys(kinds):
            numbers = [i for i, own in enumerate(kinds) if own == kind]
            chosen = [rows[i] for i in numbers]
            session = chosen[0].session

            def work(parts: Sequence[int], chosen=chosen, session=session) -> list[T]:
                order = sorted(range(len(parts)), key=lambda i: chosen[parts[i]].run)  # equal runs side by side
                own = [chosen[parts[i]] for i in order]
                batch = session.codec.pad_sources([row.session.codec.source_row(row.example) for row in own])
                batch = {name: ids.to(session.device) for name, ids in batch.items()}
                prompts = self.prompts_of(own, batch)
                with self.embedding.blocks_of([row.run for row in own]):
                    made = dict(zip(order, decode(session, batch, own, prompts), strict=True))
                return [made[i] for i in range(len(parts))]

            keys = [(row.run, row.example.source_ids) for row in chosen]
            lengths = [len(row.session.codec.source_row(row.example)) for row in chosen]
            with evaluating(session):
                self.compute_prompts(chosen)
                made = in_batches(session, work, keys, lengths, answers=count_answers(kind))
            results.update(zip(numbers, made, strict=True))
        return [results[i] for i in range(len(rows))]

    def compute_prompts(self, rows: Sequence[BankRow]) -> None:
        """Computes the prompts of the rows' runs that no earlier request has needed."""
        for row in rows:
            if row.run not in self.prompts:
                with self.embedding.blocks_of([row.run]):
                    self.prompts[row.run] = computed_prompt(row.session)

    def prompts_of(self, rows: Sequence[BankRow], batch: Batch) -> Prompts:
        """The computed prompts of a batch's rows; None where there are none, or they would not fit the model's window
        beside the longest source.
        """
        prompts, window = join_prompts([self.prompts[row.run] for row in rows]), rows[0].session.capabilities.window
        if prompts is None or window is None:
            return prompts
        widest = prompts.length + batch["input_ids"].shape[1] + max(longest_answer(row.session) for row in rows)
        return prompts if widest <= window else None


# What a bank can hold -------------------------------------------------------------------------------------------------


def can_be_banked(method: Method | type[Method]) -> bool:
    """Whether all that the method trains lies in the model's input embedding."""
    return method.stacks or not method.rates


def why_not_banked(config: RunConfig) -> str | None:
    """Why a run cannot be in a bank with others, or None where it can."""
    if not can_be_banked(config.method_options):
        known = ", ".join(name for name, method in METHODS.items() if can_be_banked(method))
        return f"method '{config.method}' changes more than the model's input; {known} can share a batch"
    sampling = task_of(config).sampling
    if sampling is not None and sampling.temperature:
        return f"task '{config.task}' draws samples, which depend on the batch"
    return None


def require_bankable(configs: Mapping[str, RunConfig]) -> None:
    """Raises UserError for runs that cannot share a batch, naming the first two that differ or the one that cannot."""
    if not configs:
        raise UserError("a bank needs at least one run id or adapter folder")
    for name, config in configs.items():
        if (reason := why_not_banked(config)) is not None:
            raise UserError(f"{name}: {reason}")
    for (name, config), (other_name, other) in itertools.pairwise(configs.items()):
        for option, (ours, theirs) in differing_options(config, other).items():
            raise UserError(
                f"{name} has --{option} {ours}, {other_name} has --{option} {theirs}: runs in one batch share "
                "the model and its arithmetic"
            )


def differing_options(config: RunConfig, other: RunConfig) -> dict[str, tuple[Any, Any]]:
    """{option: both values} of what keeps two runs from sharing a model."""
    differing = {
        option: (config.get(option), other.get(option))
        for option in ("model", "model_revision", "precision")
        if config.get(option) != other.get(option)
    }
    if "model" in differing and base_identity(config.model) == base_identity(other.model):
        del differing["model"]
    return differing
