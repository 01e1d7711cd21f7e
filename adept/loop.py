"""One training loop and one evaluation for every method and task."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from adept import checkpoint, memory, models, results
from adept.config import RunConfig, UserError, first_line
from adept.data import IGNORED, Codec, Data, Example, batch_indices, load_data, pad
from adept.embedding import PromptedEmbedding
from adept.methods import METHODS
from adept.metrics import Answers, score
from adept.optim import make_optimizer, parameter_groups, schedule, set_rates
from adept.resume import Checkpoints, TrainState
from adept.sandbox import require_protection
from adept.stop import Signals, Stopped
from adept.tasks import Task, task_of
from adept.track import make_tracker

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

    @property
    def trainables(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def answer(self, sources: Sequence[str]) -> list[str]:
        """The predicted string for each source text, rendered as the task renders its rows ("review: ...")."""
        examples = [Example(str(i), source, "", ()) for i, source in enumerate(sources)]
        return predict(self, self.codec.encode(examples))

    def autocast(self) -> contextlib.AbstractContextManager:
        enabled = self.config.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


def pick_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name} cannot be used here: {first_line(error, 100)}; --device auto takes what there is") from error
    return device


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def open_session(config: RunConfig) -> Session:
    """Loads the model, applies the method (seeded), places it. Raises UserError for what cannot be loaded or does not fit."""
    task, method, device = task_of(config), METHODS[config.method], pick_device(config.device)
    task.check(config)
    task.permit(config)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
    model, tokenizer = models.load(config)
    if task.cue is None and model.config.is_encoder_decoder:
        raise UserError(f"task '{task.name}' continues its source, so it needs a decoder-only model, such as --model codegen-350m")
    seed_everything(config.seed)
    model = method.apply(model, tokenizer, config)
    if config.precision == "bf16":
        for parameter in model.parameters():  # not model.to(): buffers such as rotary frequencies need their digits
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
    model.to(device)
    wrapped = [m for m in model.modules() if isinstance(m, PromptedEmbedding)]
    vocab_size = wrapped[0].vocab_size if wrapped else 0
    prompt_len = config.prompt_len if method.virtual_prompt else 0
    codec = Codec(
        tokenizer=tokenizer,
        encoder_decoder=model.config.is_encoder_decoder,
        prompt_ids=tuple(range(vocab_size, vocab_size + prompt_len)),
        max_source_len=config.max_source_len,
        max_target_len=config.max_target_len or FREE_TEXT_LEN,
        cue=task.cue,
        cut_references=bool(config.cut_references),
    )
    if config.max_target_len is None and (labels := task.labels(config)) is not None:
        longest = max(len(codec.target_ids(label)) for label in labels)
        codec = dataclasses.replace(codec, max_target_len=longest)
    answer_len = max(codec.max_target_len, config.max_new_tokens or 0)
    total, limit = prompt_len + config.max_source_len + answer_len, models.max_positions(model)
    if limit is not None and total > limit:
        raise UserError(
            f"--prompt_len {prompt_len} + --max_source_len {config.max_source_len} + {answer_len} target tokens "
            f"exceed the model's {limit} positions"
        )
    return Session(config, task, model, codec, device)


# Evaluation -------------------------------------------------------------------------------------------------------------


def evaluate(session: Session, examples: list[Example], scoring: str | None = None) -> tuple[dict[str, float], list[str]]:
    """({metric: percent}, predictions in the order of `examples`, sampled ones repeated). scoring: in place of the config's."""
    examples = sampled(session.config, examples)
    predictions = predict(session, examples, scoring)
    return score(session.task.metrics, answers(session, examples, predictions)), predictions


def sampled(config: RunConfig, examples: list[Example]) -> list[Example]:
    """Each example as often as programs are drawn for it; the metrics take its copies as one question."""
    return [example for example in examples for _ in range(config.samples or 1)]


def answers(session: Session, examples: list[Example], predictions: list[str]) -> Answers:
    return Answers(
        predictions=predictions,
        references=[e.references for e in examples],
        labels=session.task.labels(session.config),
        groups=[e.group for e in examples],
        cleanup=session.config.mbpp_cleanup,
    )


@torch.no_grad()
def predict(session: Session, examples: list[Example], scoring: str | None = None) -> list[str]:
    """The predicted string of each example, by generation or by label likelihood (--scoring, or `scoring` in its place)."""
    config, labels = session.config, session.task.labels(session.config)
    likelihood = (scoring or config.scoring) == "likelihood"
    was_training = session.model.training
    session.model.eval()
    # Equal sources get equal answers unless they are drawn: ReCoRD's row per answer is predicted once a query.
    keys = [i if config.temperature else example.source_ids for i, example in enumerate(examples)]
    distinct = list({key: i for i, key in enumerate(keys)}.values())
    order = sorted(distinct, key=lambda i: -len(examples[i].source_ids))  # longest first: memory fails early, if it does
    predictions: dict = {}
    with own_randomness(session):
        for start in range(0, len(order), config.eval_batch_size):
            rows = order[start : start + config.eval_batch_size]
            batch = {name: ids.to(session.device) for name, ids in session.codec.source_batch([examples[i] for i in rows]).items()}
            with session.autocast():
                texts = most_likely(session, batch, labels) if likelihood else generate(session, batch)
            predictions.update(zip((keys[i] for i in rows), texts, strict=True))
    session.model.train(was_training)
    return [predictions[key] for key in keys]


@contextlib.contextmanager
def own_randomness(session: Session) -> Iterator[None]:
    """Samples are drawn by --seed alone, and drawing them does not move the training's random numbers."""
    devices = [session.device] if session.device.type == "cuda" else []
    with torch.random.fork_rng(devices, enabled=bool(session.config.temperature)):
        if session.config.temperature:
            torch.manual_seed(session.config.seed)
        yield


def generate(session: Session, batch: dict[str, Tensor]) -> list[str]:
    """Greedy over the whole vocabulary, or sampled where the config has a temperature."""
    config, tokenizer = session.config, session.codec.tokenizer
    drawn = {"do_sample": False}
    if config.temperature:  # top_k: the library's default of the time, which LoPA's protocol leaves as it is
        drawn = {"do_sample": True, "temperature": config.temperature, "top_p": config.top_p, "top_k": 50}
    output = session.model.generate(
        **batch, **drawn, num_beams=1, max_new_tokens=max_new_tokens(session), max_length=None,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    answer = output[:, 1:] if session.codec.encoder_decoder else output[:, batch["input_ids"].shape[1] :]
    return [session.codec.text(row) for row in answer.tolist()]


def max_new_tokens(session: Session) -> int:
    """--max_new_tokens. By default one token more than the longest label, since a label that goes on is another string; free text
    gets what the released code's max_length of 20, which counts the decoder's start token, leaves it."""
    if session.config.max_new_tokens is not None:
        return session.config.max_new_tokens
    labelled = session.task.labels(session.config) is not None
    return session.codec.max_target_len + 1 if labelled else max(1, session.codec.max_target_len - 1)


def most_likely(session: Session, batch: dict[str, Tensor], labels: tuple[str, ...]) -> list[str]:
    """The label with the highest log-probability, EOS included; the source passes through the model once for all labels."""
    model, device, choices = session.model, session.device, len(labels)
    rows = len(batch["input_ids"])
    targets = pad([session.codec.target_ids(label) for label in labels], IGNORED, "right", 1).to(device).repeat(rows, 1)  # [B*C, L]
    mask = batch["attention_mask"].repeat_interleave(choices, dim=0)
    if session.codec.encoder_decoder:
        encoded = model.get_encoder()(**batch).last_hidden_state.repeat_interleave(choices, dim=0)
        logits = model(encoder_outputs=(encoded,), attention_mask=mask, labels=targets).logits  # [B*C, L, V]
    else:
        positions = batch["attention_mask"].cumsum(dim=1) - 1
        last = torch.tensor([positions.shape[1] - 1], device=device)  # as an index: slicing would make torch copy the head B times
        prefill = model(**batch, position_ids=positions.clamp(min=0), use_cache=True, logits_to_keep=last)
        prefill.past_key_values.batch_repeat_interleave(choices)
        answer = targets[:, :-1].clamp(min=0)  # the pads after EOS are predicted but not counted
        after = positions[:, -1:].repeat_interleave(choices, dim=0) + 1 + torch.arange(answer.shape[1], device=device)
        continued = model(
            input_ids=answer, attention_mask=torch.cat([mask, torch.ones_like(answer)], dim=1), position_ids=after,
            past_key_values=prefill.past_key_values, use_cache=True,
        )  # fmt: skip
        logits = torch.cat([prefill.logits.repeat_interleave(choices, dim=0), continued.logits], dim=1)
    counted = targets != IGNORED
    log_probs = logits.float().log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]  # [B*C, L]
    best = (log_probs * counted).sum(1).view(rows, choices).argmax(1)
    return [labels[i] for i in best.tolist()]


# Training ---------------------------------------------------------------------------------------------------------------


def micro_batches(session: Session, train: list[Example], skip: int = 0) -> Iterator[tuple[dict[str, Tensor], list[str]]]:
    """Endless (batch on the device, ids of its examples), from batch number `skip` on."""
    config = session.config
    order = batch_indices([e.length for e in train], config.batch_size, config.seed, group_by_length=config.group_by_length, skip=skip)
    for rows in order:
        examples = [train[i] for i in rows]
        batch = session.codec.train_batch(examples)
        yield {name: ids.to(session.device, non_blocking=True) for name, ids in batch.items()}, [e.id for e in examples]


def train_step(session: Session, optimizer: torch.optim.Optimizer, batches: Iterator, multiplier: float) -> tuple[Tensor, list[str], int]:
    """One optimizer step over grad_accum forward passes -> (mean loss, ids of the examples, tokens that were no padding)."""
    config = session.config
    set_rates(optimizer, multiplier)
    total, ids, tokens = torch.zeros((), device=session.device), [], 0
    for _ in range(config.grad_accum):
        batch, names = next(batches)
        with session.autocast():
            loss = session.model(**batch).loss / config.grad_accum
        loss.backward()
        total = total + loss.detach()
        ids += names
        tokens += batch["attention_mask"].sum()
    if config.max_grad_norm:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], config.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, ids, tokens


def run(config: RunConfig) -> dict:
    """Trains, selects by validation, tests the best checkpoint, writes the record; a finished run's record is returned as it is.

    A run that was killed goes on from its last checkpoint. Raises UserError for bad input, for a loss that is not finite (with step,
    rates and the batch's ids), for a full disk and for too little memory; Claimed when another process is at this run; Stopped
    after Ctrl-C, SIGTERM or SIGUSR1, with the training saved.
    """
    if (done := results.finished(config.results_dir, config.run_id)) is not None:
        return done
    with results.claim(config.results_dir, config.run_id), Signals() as signals:
        # Another process may have finished it between the look and the claim.
        return results.find(config.results_dir, config.run_id) or complete(config, signals)


def complete(config: RunConfig, signals: Signals) -> dict:
    """From the start or the last checkpoint to the written record."""
    task = task_of(config)
    task.permit(config)
    with signals.at_once(), memory.told(memory.loading(config)):
        protection = require_protection() if task.runs_code else None
        data = load_data(task, config)
        session = open_session(config)
        encode = session.codec.encode
        data = dataclasses.replace(data, train=encode(data.train), validation=encode(data.validation), test=encode(data.test))

    groups = parameter_groups(session.model, METHODS[config.method].rates(config), config)
    described = {group["name"]: {"lr": group["lr"], "params": sum(p.numel() for p in group["params"])} for group in groups}
    optimizer = make_optimizer(groups, config) if groups else None
    folder = results.run_folder(config.results_dir, config.run_id)
    checkpoints = Checkpoints(folder, session, optimizer, data.fingerprint)
    state = checkpoints.load()
    if config.init_from is not None and not state.step:
        checkpoint.restore(session.model, checkpoint.find_adapter(config.init_from, config.results_dir))
    with make_tracker(config, folder, described, session, state.step) as tracker:
        try:
            train(session, data, optimizer, state, tracker, checkpoints, signals)
            checkpoint.assign(session.trainables, state.best["weights"])
            with evaluating(session, state, signals):
                test, predictions = evaluate(session, data.test)
                agreement = compare_scoring(session, data.test, test, predictions) if config.compare_scoring else None
            tracker.finish(state.best, test)
        except (Stopped, memory.EvaluationMemory) as end:  # both come between two steps, so the state is whole
            read_losses(state, optimizer)
            checkpoints.save(state)
            if state.step:
                end.args = (f"{end} from step {state.step} of {config.steps}, which is saved",)
            raise

    record = results.make_record(session, data, described, state.history, state.best, test, state.timing())
    if state.resumed:
        record["provenance"]["resumed"] = state.resumed
    if protection is not None:
        record["notes"].append(protection)
    if agreement is not None:
        record["scoring_agreement"] = agreement
    if config.measure_offsets:
        from adept.analysis import offset_statistics

        record["offsets"] = offset_statistics(session, data.train)
    checkpoint.save(folder, session)
    results.write_predictions(folder / "predictions.jsonl", sampled(config, data.test), predictions)
    results.write(config.results_dir, record)
    checkpoints.remove()
    return record


@contextlib.contextmanager
def evaluating(session: Session, state: TrainState, signals: Signals) -> Iterator[None]:
    """An evaluation changes nothing but the time it took, so that a signal may end it at once."""
    started = time.perf_counter()
    with signals.at_once(), memory.told(memory.evaluating(session.config), memory.EvaluationMemory):
        yield
    state.eval_seconds += time.perf_counter() - started


def compare_scoring(session: Session, examples: list[Example], test: dict[str, float], predictions: list[str]) -> dict:
    """{"rows", "agreement" in percent, "generate" and "likelihood": {metric: percent}}: the test set scored in the other way too."""
    ways = ("generate", "likelihood")
    other = ways[session.config.scoring == "generate"]
    scores, others = evaluate(session, examples, other)
    same = sum(a == b for a, b in zip(predictions, others, strict=True))
    return {"rows": len(predictions), "agreement": 100 * same / len(predictions), session.config.scoring: test, other: scores}


def train(
    session: Session,
    data: Data,
    optimizer: torch.optim.Optimizer | None,
    state: TrainState,
    tracker,
    checkpoints: Checkpoints,
    signals: Signals,
) -> None:
    """Takes `state` from where it is to the last step. Evaluates every eval_every steps and after the last one.

    Where nothing validates (MBPP), the last step is the best. Raises Stopped between two steps or within an evaluation.
    """
    config, multiplier = session.config, schedule(session.config)
    batches = micro_batches(session, data.train, skip=state.step * config.grad_accum)
    if session.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(session.device)

    session.model.train()
    while True:
        step, last = state.step, state.step == config.steps
        due = last or (step > 0 and step % config.eval_every == 0)
        if due or step % config.log_every == 0:
            read_losses(state, optimizer)
            if news := state.losses[state.shown :]:
                tracker.step(step, sum(news) / len(news), {group["name"]: group["lr"] for group in optimizer.param_groups})
                state.shown = len(state.losses)
        if due and not state.evaluated:
            with evaluating(session, state, signals):
                validation = evaluate(session, data.validation)[0] if data.validation else {}
            loss = sum(state.losses) / len(state.losses) if state.losses else None
            seconds = round(state.train_seconds + state.eval_seconds, 3)
            state.history.append({"step": step, "train_loss": loss, "validation": validation, "seconds": seconds})
            state.losses, state.shown = [], 0
            if not state.best or not validation or validation[config.select_on] > state.best["validation"][config.select_on]:
                state.best = {"step": step, "validation": validation, "weights": checkpoint.snapshot(session.trainables)}
            tracker.evaluated(state.history[-1], state.best)
        if checkpoints.due(state):
            read_losses(state, optimizer)
            checkpoints.save(state)
        signals.check()
        if last:
            return
        started = time.perf_counter()
        with memory.told(memory.training(config)):
            loss, ids, count = train_step(session, optimizer, batches, multiplier(step))
        state.step += 1
        state.unread.append((step, loss, ids))
        state.tokens, state.examples = state.tokens + count, state.examples + len(ids)
        state.train_seconds += time.perf_counter() - started


def read_losses(state: TrainState, optimizer: torch.optim.Optimizer | None) -> None:
    """Takes the unread losses off the device. Raises UserError at the first that is not finite."""
    if not state.unread:
        return
    losses = torch.stack([loss for _, loss, _ in state.unread]).tolist()
    for (step, _, ids), loss in zip(state.unread, losses, strict=True):
        if not math.isfinite(loss):
            rates = ", ".join(f"{group['name']}: {group['initial_lr']:g}" for group in optimizer.param_groups)
            raise UserError(
                f"the loss is {loss} at step {step + 1} (peak rates {rates}; examples {' '.join(ids)}): "
                "lower the rates, or use --precision fp32"
            )
    state.losses, state.unread = state.losses + losses, []
