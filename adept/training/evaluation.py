"""Prediction and scoring, for every method and task: by generation or by the likelihood of the labels."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from adept.base import distributed
from adept.data.codec import pad
from adept.data.example import IGNORED, Example
from adept.methods.embedding import PromptedEmbedding
from adept.metrics import Answers, score
from adept.models.computed_prompt import ComputedPrompt, compute_prompt
from adept.models.generation import generate_ids
from adept.models.likelihood import choice_logits
from adept.tasks.task import Task
from adept.training.session import Session, require_code_permission

T = TypeVar("T")

LEAST_FULL = {"cpu": 0.9, "cuda": 0.5}
"""The least ratio of the shortest to the longest row of an evaluation batch.

Padding costs time on a CPU; small batches cost time on a GPU, which then waits for kernel launches.
"""

MOST_ANSWERS = 512
"""Rows of a batch times labels, at most, where labels are scored by their likelihood: 77 classes take 6 rows."""


def evaluate(
    session: Session, examples: list[Example], scoring: str | None = None
) -> tuple[dict[str, float], list[str]]:
    """({metric: percent}, predictions in the order of `examples`).

    Where several samples are drawn for an example, it has as many predictions, one after the other. scoring: "generate"
    or "likelihood", in place of the config's. Raises UserError where scoring would run programs that nobody permitted.
    """
    require_code_permission(session.config, session.task)
    examples = repeat_for_samples(session.task, examples)
    predictions = predict(session, examples, scoring)
    scores = distributed.on_main_process(
        lambda: score(session.task.metrics, make_answers(session.task, examples, predictions))
    )
    return scores, predictions


def repeat_for_samples(task: Task, examples: list[Example]) -> list[Example]:
    """Each example as often as samples are drawn for it. The metrics take the copies as one question."""
    return [example for example in examples for _ in range(task.sampling.samples if task.sampling else 1)]


def make_answers(task: Task, examples: list[Example], predictions: list[str]) -> Answers:
    """Predictions and references in the form that the metrics take."""
    return Answers(
        predictions=predictions,
        references=[e.references for e in examples],
        labels=task.labels,
        groups=[e.group for e in examples],
        invalid=task.invalid_answers,
        cleanup=task.completion_cleanup,
    )


def compare_scoring(session: Session, examples: list[Example], test: dict[str, float], predictions: list[str]) -> dict:
    """Evaluates the test set by the other scoring, too, and compares the predictions.

    test, predictions: by the config's scoring. Returns {"rows", "agreement": percent of rows with equal predictions,
    "generate" and "likelihood": {metric: percent}}.
    """
    other = "likelihood" if session.config.scoring == "generate" else "generate"
    scores, others = evaluate(session, examples, other)
    same = sum(a == b for a, b in zip(predictions, others, strict=True))
    return {
        "rows": len(predictions),
        "agreement": 100 * same / len(predictions),
        session.config.scoring: test,
        other: scores,
    }


# Prediction -----------------------------------------------------------------------------------------------------------


def temperature(session: Session) -> float:
    """The sampling temperature; 0 is greedy decoding."""
    return session.task.sampling.temperature if session.task.sampling else 0.0


@torch.no_grad()
def predict(session: Session, examples: list[Example], scoring: str | None = None, beams: int = 1) -> list[str]:
    """The predicted string of each example, by generation or by label likelihood.

    scoring: "generate" or "likelihood", in place of the config's. beams: of a search in place of greedy decoding.
    """
    likelihood = (scoring or session.config.scoring) == "likelihood"
    # Equal sources get equal predictions unless these are sampled: of ReCoRD's rows, one for each query is predicted.
    keys = [i if temperature(session) else example.source_ids for i, example in enumerate(examples)]

    def predict_rows(rows: Sequence[int]) -> list[str]:
        batch = source_batch(session, [examples[i] for i in rows])
        if likelihood:
            return most_likely_labels(session, batch, prompt)
        return generate(session, batch, beams, prompt)

    with evaluating(session):
        prompt = computed_prompt(session)
        return in_batches(
            session, predict_rows, keys, [len(session.codec.source_row(example)) for example in examples],
            answers=len(session.task.labels) if likelihood else 1,
            inside=folded(session) if session.config.fold else None,
        )  # fmt: skip


@contextlib.contextmanager
def evaluating(session: Session) -> Iterator[None]:
    """Inside, the model is in evaluation mode."""
    was_training = session.model.training
    session.model.eval()
    yield
    session.model.train(was_training)


def computed_prompt(session: Session) -> ComputedPrompt | None:
    """The prompt as the session's model is now; None where rows have none in common or the model needs it in each."""
    prompt, able = session.codec.prompt_ids, session.capabilities
    widest = len(prompt) + session.codec.max_source_len + longest_answer(session)
    too_wide = able.window is not None and widest > able.window
    if session.shared_prefix < 2 or not able.ignores_inner_padding or too_wide:
        return None
    with session.autocast():
        return compute_prompt(session.model, prompt)


def longest_answer(session: Session) -> int:
    """The tokens that may follow a source, scored or generated."""
    return max(session.codec.max_target_len, max_new_tokens(session))


def source_batch(session: Session, examples: Sequence[Example]) -> dict[str, Tensor]:
    """The codec's source_batch of encoded examples, on the session's device."""
    return {name: ids.to(session.device) for name, ids in session.codec.source_batch(examples).items()}


def in_batches(
    session: Session,
    work: Callable[[Sequence[int]], list[T]],
    keys: Sequence[Hashable],
    lengths: Sequence[int],
    *,
    answers: int = 1,
    inside: contextlib.AbstractContextManager | None = None,
) -> list[T]:
    """What work() makes of each row; it is called with the numbers of rows of similar length, in the run's precision.

    keys: rows of equal keys have equal results, which are made once. lengths: of prompt and source, by row number.
    answers: those that each row is scored with. inside: entered by each process that has a share of the rows.
    """
    distinct = list({key: i for i, key in enumerate(keys)}.values())
    order = sorted(distinct, key=lambda i: -lengths[i])  # longest first, so that too little memory shows at once

    def make_own_rows() -> dict[Hashable, T]:
        """{key: result} of this process's rows."""
        found: dict = {}
        with own_random_numbers(session), inside or contextlib.nullcontext():
            for numbers in evaluation_batches(order, lengths, session, answers):
                rows = distributed.shard_rows(numbers)
                with session.autocast():
                    results = work(rows)
                found.update(zip((keys[i] for i in rows), results, strict=True))
        return found

    parts = distributed.gather_objects(make_own_rows)
    found = dict(itertools.chain.from_iterable(part.items() for part in parts))
    return [found[key] for key in keys]


def evaluation_batches(
    order: Sequence[int], lengths: Sequence[int], session: Session, answers: int = 1
) -> Iterator[list[int]]:
    """Cuts `order`, row numbers from the longest to the shortest, into batches with little padding.

    A batch has at most rows_at_once() rows a process; answers: those that each row is scored with. lengths: of prompt
    and source, by row number. Sampled rows are batched by --eval_batch_size alone, so that the samples do not depend on
    padding. A model that reads padding (RWKV) gets batches of one length.
    """
    least = 0.0 if temperature(session) else LEAST_FULL.get(session.device.type, 0.5)
    least = least if session.capabilities.ignores_left_padding else 1.0
    most = rows_at_once(session, answers) * distributed.WORLD
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) == most or lengths[i] < least * lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def rows_at_once(session: Session, answers: int) -> int:
    """Rows of an evaluation batch, at most: --eval_batch_size, or fewer where each is scored with many answers."""
    return min(session.config.eval_batch_size, max(1, MOST_ANSWERS // answers))


@contextlib.contextmanager
def folded(session: Session) -> Iterator[None]:
    """Inside, ADePT's network is in the embedding table (--fold)."""
    hooks = [(m, m.base, m.offset) for m in session.model.modules() if isinstance(m, PromptedEmbedding)]
    try:
        for hook, _, _ in hooks:
            hook.fold()
        yield
    finally:
        for hook, base, offset in hooks:
            hook.base, hook.offset = base, offset


@contextlib.contextmanager
def own_random_numbers(session: Session) -> Iterator[None]:
    """Inside, samples depend on --seed alone, and drawing them does not change the training's random numbers."""
    devices = [session.device] if session.device.type == "cuda" else []
    with torch.random.fork_rng(devices, enabled=bool(temperature(session))):
        if temperature(session):
            torch.manual_seed(distributed.rank_seed(session.config.seed))
        yield


def generate(
    session: Session, batch: dict[str, Tensor], beams: int = 1, prompt: ComputedPrompt | None = None
) -> list[str]:
    """Generates an answer to each source: greedily, by beam search, or sampled where the task has a temperature.

    batch: the codec's source_batch, {"input_ids", "attention_mask"} [B, T]. prompt: what all rows begin with, if it is
    computed already.
    """
    return [session.codec.text(row) for row in generated_ids(session, batch, beams, prompt)]


def generated_ids(
    session: Session, batch: dict[str, Tensor], beams: int = 1, prompt: ComputedPrompt | None = None
) -> list[list[int]]:
    """The token ids of generate()'s answers."""
    sampling = None
    if temperature(session):  # top_k: transformers' default when LoPA was published, which its protocol does not change
        chosen = session.task.sampling
        sampling = {"temperature": chosen.temperature, "top_p": chosen.top_p, "top_k": 50}
    limit, sharded = max_new_tokens(session), session.config.shard_model
    return generate_ids(session.model, batch, limit, sampling, beams=beams, synced_gpus=sharded, prompt=prompt).tolist()


def max_new_tokens(session: Session) -> int:
    """--max_new_tokens, or its default.

    With labels the default is one token more than the longest label, so that a label with a continuation is seen to be
    another string. Free text gets one token less than FREE_TEXT_LEN: the released code's max_length of 20 counts the
    decoder's start token.
    """
    if session.config.max_new_tokens is not None:
        return session.config.max_new_tokens
    labelled = session.task.labels is not None
    return session.codec.max_target_len + 1 if labelled else max(1, session.codec.max_target_len - 1)


def most_likely_labels(session: Session, batch: dict[str, Tensor], prompt: ComputedPrompt | None) -> list[str]:
    """For each row, the label with the highest log-probability. batch, prompt: of label_log_probabilities()."""
    best = label_log_probabilities(session, batch, prompt).argmax(1)
    return [session.task.labels[i] for i in best.tolist()]


@torch.no_grad()
def label_scores(session: Session, examples: Sequence[Example]) -> list[list[float]]:
    """The log-probability of each label, of each example."""

    def score_rows(rows: Sequence[int]) -> list[list[float]]:
        batch = source_batch(session, [examples[i] for i in rows])
        return label_log_probabilities(session, batch, prompt).tolist()

    lengths = [len(session.codec.source_row(example)) for example in examples]
    keys, labels = [example.source_ids for example in examples], len(session.task.labels)
    with evaluating(session):
        prompt = computed_prompt(session)
        return in_batches(session, score_rows, keys, lengths, answers=labels)


def label_log_probabilities(session: Session, batch: dict[str, Tensor], prompt: ComputedPrompt | None = None) -> Tensor:
    """[B, C]: the log-probability of each label's tokens, EOS included, after each row's source.

    The source passes through the model once for all labels. batch: the codec's source_batch, {"input_ids",
    "attention_mask"} [B, T]. prompt: what all rows begin with, if it is computed already.
    """
    labels = session.task.labels
    choices = pad([session.codec.target_ids(label) for label in labels], IGNORED, "right", 1).to(session.device)
    with_cache = session.capabilities.has_key_cache
    logits = choice_logits(session.model, batch, choices, with_cache=with_cache, prompt=prompt)  # [B*C, L, V]
    targets = choices.repeat(len(batch["input_ids"]), 1)  # [B*C, L]
    log_probs = logits.float().log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]  # [B*C, L]
    return (log_probs * (targets != IGNORED)).sum(1).view(-1, len(labels))
