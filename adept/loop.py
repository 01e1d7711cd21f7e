"""One training loop and one evaluation for every method and task."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import itertools
import math
import random
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from adept import checkpoint, memory, models, parallel, recompute, results
from adept.config import RunConfig, UserError, first_line
from adept.data import IGNORED, Codec, Data, Example, batch_indices, load_data, pad
from adept.early import EarlyStopped
from adept.embedding import PromptedEmbedding
from adept.methods import METHODS
from adept.metrics import Answers, score
from adept.optim import make_optimizer, parameter_groups, schedule
from adept.resume import Checkpoints, TrainState
from adept.sandbox import require_protection
from adept.step import Batch, Stack, Step, Work, batch_losses, compiled, make_batch, next_work, train_step
from adept.stop import Signals, Stopped
from adept.tasks import Task, task_of
from adept.track import make_tracker, say

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
    batch_losses: Callable[[nn.Module, dict[str, Tensor], int, int], Tensor]

    @property
    def trainables(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def answer(self, sources: Sequence[str]) -> list[str]:
        """The predicted string for each source text, rendered as the task renders its rows ("review: ...")."""
        examples = [Example(str(i), source, "", ()) for i, source in enumerate(sources)]
        return predict(self, self.codec.encode(examples))

    @property
    def shared_prefix(self) -> int:
        """Tokens at the beginning of each training row that have the same states in all of them: a causal model's prompt.

        A sharded model computes it with every row: FSDP gathers a block's weights for the gradient of its output, not of its cache.
        """
        return 0 if self.codec.encoder_decoder or self.config.shard_model else len(self.codec.prompt_ids)

    def autocast(self) -> contextlib.AbstractContextManager:
        enabled = self.config.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the GPU where there is one. Raises UserError for one that cannot compute here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # "meta" makes tensors too, but without values
    except (RuntimeError, AssertionError, ImportError) as error:
        raise UserError(f"--device {name} cannot be used here: {first_line(error, 100)}; --device auto takes what there is") from error
    return device


def seed_everything(seed: int) -> None:
    """Seeds the generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def open_session(config: RunConfig) -> Session:
    """Loads the model, applies the method (seeded), places it. Raises UserError for what cannot be loaded or does not fit."""
    (session,) = open_sessions([config])
    if isinstance(session, UserError):
        raise session
    return session


def open_sessions(configs: Sequence[RunConfig]) -> list[Session | UserError]:
    """Sessions of runs of one model, which is loaded once: each has light copies of its modules and shares its weights.

    What is wrong with one run's method stands in its place. Raises UserError for a model that cannot be loaded.
    """
    for config in configs:
        task_of(config).check(config)
        parallel.check(config)
    pick_device(configs[0].device)  # a device that is not there is told before gigabytes are read
    model, tokenizer = models.load(configs[0])
    copies = [model, *(models.light_copy(model) for _ in configs[1:])]
    sessions: list = []
    for config, own in zip(configs, copies, strict=True):
        try:
            sessions.append(apply_method(config, own, tokenizer))
        except UserError as error:
            sessions.append(error)
    # Rounded to bf16 when every method has seen the weights as they were.
    for i, (config, applied) in enumerate(zip(configs, sessions, strict=True)):
        if not isinstance(applied, UserError):
            try:
                sessions[i] = place(config, applied, tokenizer)
            except UserError as error:
                sessions[i] = error
    return sessions


def adapt(config: RunConfig, model: nn.Module, tokenizer, device: torch.device | None = None) -> Session:
    """open_session with a model and a tokenizer at hand. Every parameter of the model is frozen; it is changed in place.

    device: in place of the config's.
    """
    return place(config, apply_method(config, model, tokenizer), tokenizer, device)


def apply_method(config: RunConfig, model: nn.Module, tokenizer) -> nn.Module:
    """Seeds everything and puts the method's parameters into the frozen model. Raises UserError where task and model do not fit."""
    task = task_of(config)
    task.permit(config)
    if task.cue is None and model.config.is_encoder_decoder:
        raise UserError(f"task '{task.name}' continues its source, so it needs a decoder-only model, such as --model codegen-350m")
    seed_everything(config.seed)
    return METHODS[config.method].apply(model, tokenizer, config)


def place(config: RunConfig, model: nn.Module, tokenizer, device: torch.device | None = None) -> Session:
    """The adapted model in its precision and on its device, with the codec of its task."""
    task, method, device = task_of(config), METHODS[config.method], device or pick_device(config.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
    if config.precision == "bf16":
        for parameter in model.parameters():  # not model.to(): buffers such as rotary frequencies need their digits
            parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else torch.bfloat16)
    if config.checkpoint_activations:
        recompute.checkpoint_blocks(model)
    if config.shard_model:
        parallel.shard(model, device)
    model.to(device)
    wrapped = [m for m in model.modules() if isinstance(m, PromptedEmbedding)]
    for hook in wrapped:
        hook.returns = torch.bfloat16 if config.precision == "bf16" else None
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
    return Session(config, task, model, codec, device, compiled(config, device) if config.compile else batch_losses)


# Evaluation -------------------------------------------------------------------------------------------------------------


def evaluate(session: Session, examples: list[Example], scoring: str | None = None) -> tuple[dict[str, float], list[str]]:
    """({metric: percent}, predictions in the order of `examples`, sampled ones repeated). scoring: in place of the config's."""
    examples = sampled(session.config, examples)
    predictions = predict(session, examples, scoring)
    return parallel.first(lambda: score(session.task.metrics, answers(session, examples, predictions))), predictions


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

    def predicted() -> dict:
        """{key: prediction} of this process's rows."""
        found: dict = {}
        with own_randomness(session), folded(session.model) if config.fold else contextlib.nullcontext():
            for together in even_batches(order, [len(e.source_ids) for e in examples], session):
                rows = parallel.share(together)
                batch = {name: ids.to(session.device) for name, ids in session.codec.source_batch([examples[i] for i in rows]).items()}
                with session.autocast():
                    texts = most_likely(session, batch, labels) if likelihood else generate(session, batch)
                found.update(zip((keys[i] for i in rows), texts, strict=True))
        return found

    predictions = dict(itertools.chain.from_iterable(found.items() for found in parallel.each(predicted)))
    session.model.train(was_training)
    return [predictions[key] for key in keys]


LEAST_FULL = {"cpu": 0.9, "cuda": 0.5}
"""The shortest row of an evaluation batch by its longest. A CPU's time goes into tokens and padding, that of a GPU with small batches into
launches."""


def even_batches(order: Sequence[int], lengths: Sequence[int], session: Session) -> Iterator[list[int]]:
    """`order`, row numbers from the longest to the shortest, in batches of --eval_batch_size a process at most and without much padding.

    Rows that are drawn come in batches that depend on nothing but --eval_batch_size, since their randomness does.
    """
    prompt, least = len(session.codec.prompt_ids), 0.0 if session.config.temperature else LEAST_FULL.get(session.device.type, 0.5)
    batch: list[int] = []
    for i in order:
        if batch and (
            len(batch) == session.config.eval_batch_size * parallel.WORLD or prompt + lengths[i] < least * (prompt + lengths[batch[0]])
        ):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


@contextlib.contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """ADePT's network inside the embedding table (--fold), and outside it again afterwards."""
    hooks = [(m, m.base, m.offset) for m in model.modules() if isinstance(m, PromptedEmbedding)]
    try:
        for hook, _, _ in hooks:
            hook.fold()
        yield
    finally:
        for hook, base, offset in hooks:
            hook.base, hook.offset = base, offset


@contextlib.contextmanager
def own_randomness(session: Session) -> Iterator[None]:
    """Samples are drawn by --seed alone, and drawing them does not move the training's random numbers."""
    devices = [session.device] if session.device.type == "cuda" else []
    with torch.random.fork_rng(devices, enabled=bool(session.config.temperature)):
        if session.config.temperature:
            torch.manual_seed(parallel.own_seed(session.config.seed))
        yield


def generate(session: Session, batch: dict[str, Tensor]) -> list[str]:
    """Greedy over the whole vocabulary, or sampled where the config has a temperature."""
    config, tokenizer = session.config, session.codec.tokenizer
    drawn = {"do_sample": False}
    if config.temperature:  # top_k: the library's default of the time, which LoPA's protocol leaves as it is
        drawn = {"do_sample": True, "temperature": config.temperature, "top_p": config.top_p, "top_k": 50}
    output = session.model.generate(
        **batch, **drawn, num_beams=1, max_new_tokens=max_new_tokens(session), max_length=None, synced_gpus=config.shard_model,
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


def micro_batches(session: Session, train: list[Example], skip: int = 0) -> Iterator[Batch]:
    """Endless, from batch number `skip` on, made while the device works on those before."""
    config = session.config
    order = batch_indices([e.length for e in train], config.batch_size, config.seed, group_by_length=config.group_by_length, skip=skip)
    return ahead(lambda rows: make_batch(session.codec, [train[i] for i in rows]), order, 2)


def ahead(make: Callable, items: Iterable, count: int) -> Iterator:
    """make(item) of each item, `count` of them made in a thread before they are asked for."""
    items = iter(items)
    with ThreadPoolExecutor(1) as pool:
        waiting = collections.deque(pool.submit(make, item) for item in itertools.islice(items, count))
        for item in items:
            waiting.append(pool.submit(make, item))
            yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


Judge = Callable[[int, list[dict]], bool]
"""Asked after each evaluation but the last with (step, history): whether the run is to be left unfinished."""


def run(config: RunConfig, stop: Judge | None = None) -> dict:
    """Trains, selects by validation, tests the best checkpoint, writes the record; a finished run's record is returned as it is.

    A run that was killed goes on from its last checkpoint. Raises UserError for bad input, for a loss that is not finite (with step,
    rates and the batch's ids), for a full disk and for too little memory; Claimed when another process is at this run; Stopped
    after Ctrl-C, SIGTERM or SIGUSR1, and EarlyStopped where `stop` says so, both with the training saved.
    """
    (outcome,) = run_stack([(config, stop)])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def run_stack(jobs: Sequence[tuple[RunConfig, Judge | None]]) -> list[dict | Exception]:
    """run() of several runs at once, on one model that is loaded once: their records, or what run() would raise.

    Their training steps are computed together (adept/step.py); each ends, fails or is stopped early without the others. Their
    stack_key()s must be equal. Raises Stopped after a signal, with every run's training saved.
    """
    with Signals() as signals:
        shared: dict = {}
        return drive([life(config, signals, stop, shared) for config, stop in jobs], signals)


def drive(lives: Sequence[Life], signals: Signals) -> list[dict | Exception]:
    """Gives the runs their sessions and their steps, those of all that want one together, until each has ended."""
    outcomes: list = [None] * len(lives)
    wanted: dict[int, RunConfig | Work] = {}
    ends: list[BaseException] = []  # of the process: a signal, mostly

    def goes_on(i: int, answer: Session | Step | BaseException | None) -> None:
        wanted.pop(i, None)
        try:
            wanted[i] = lives[i].throw(answer) if isinstance(answer, BaseException) else lives[i].send(answer)
        except StopIteration as end:
            outcomes[i] = end.value
        except Exception as error:
            outcomes[i] = error
        except BaseException as error:
            ends.append(error)

    def answer(numbers: Sequence[int], answers: Sequence) -> None:
        """To every run, also when a signal has met one of them: those after it have made their step, too, and save it."""
        for i, each in zip(numbers, answers, strict=True):
            goes_on(i, each)
        if ends:
            raise ends[0]

    try:
        answer(range(len(lives)), [None] * len(lives))
        if configs := list(wanted.values()):
            with signals.at_once(), memory.told(memory.loading(configs[0])):
                sessions = open_sessions(configs)
            answer(tuple(wanted), sessions)
        stack_of, most = functools.cache(lambda *numbers: Stack([wanted[i].session for i in numbers])), len(lives)
        while wanted:
            together = tuple(wanted)[:most]  # who goes on is put at the end, so that all get their turn
            steps = steps_of([wanted[i] for i in together], stack_of(*together))
            if steps is not None:
                answer(together, steps)
            else:
                most = len(together) // 2
                say(f"too little memory for {len(together)} runs together: {most} at a time")
    except BaseException as error:
        for i in tuple(wanted):  # these wait for a step that is not made
            goes_on(i, Stopped(error.number) if isinstance(error, Stopped) else error)
        if not isinstance(error, Exception):
            raise
    return outcomes


def steps_of(works: Sequence[Work], stack: Stack) -> Sequence[Step | Exception] | None:
    """train_step(), or what it raises for each of the runs; None where several have too little memory together."""
    config = works[0].session.config
    try:
        with memory.told(memory.training(config), memory.TrainingMemory):
            return train_step(works, stack)
    except memory.TrainingMemory as error:
        if len(works) == 1:
            return [error]
    except Exception as error:
        return [error] * len(works)
    for work in works:  # of what was accumulated before memory ran out
        work.optimizer.zero_grad(set_to_none=True)
    memory.release(stack.device)
    return None


Life = Generator["RunConfig | Work", "Session | Step", dict]


def life(config: RunConfig, signals: Signals, stop: Judge | None, shared: dict) -> Life:
    """A run from its start or its last checkpoint to its written record, which it returns. What it raises is in run().

    It yields its config, for a session, then a Work for each optimizer step, for its Step: who drives it may do so for several at once.
    """
    if (done := parallel.first(lambda: results.finished(config.results_dir, config.run_id))) is not None:
        return done
    with parallel.in_first(results.claim(config.results_dir, config.run_id)):
        # Another process may have finished it between the look and the claim.
        done = parallel.first(lambda: results.find(config.results_dir, config.run_id))
        return done or (yield from complete(config, signals, stop, shared))


def complete(config: RunConfig, signals: Signals, stop: Judge | None, shared: dict) -> Life:
    """life() once it is this process's. shared: data that the runs of a stack have in common."""
    task = task_of(config)
    sample = config.few_shot and config.seed  # all else that the data depend on is in the stack's key
    task.permit(config)
    with signals.at_once(), memory.told(memory.loading(config)):
        protection = require_protection() if task.runs_code else None
        data = once(shared, ("rows", sample), lambda: load_data(task, config))
    session = yield config
    with signals.at_once():
        data = once(shared, ("ids", sample), lambda: encoded(data, session.codec))

    groups = parameter_groups(session.model, METHODS[config.method].rates(config), config)
    described = {group["name"]: {"lr": group["lr"], "params": sum(p.numel() for p in group["params"])} for group in groups}
    optimizer = make_optimizer(groups, config) if groups else None
    folder = results.run_folder(config.results_dir, config.run_id)
    checkpoints = Checkpoints(folder, session, optimizer, data.fingerprint)
    if parallel.RANK:
        torch.manual_seed(parallel.own_seed(config.seed))  # dropout: other rows, other masks
    state = checkpoints.load()
    if config.init_from is not None and not state.step:
        checkpoint.restore(session.model, checkpoint.find_adapter(config.init_from, config.results_dir))
    with make_tracker(config, folder, described, session, state.step) as tracker:
        try:
            yield from train(session, data, optimizer, state, tracker, checkpoints, signals, stop)
            checkpoint.assign(session.trainables, state.best["weights"])
            with evaluating(session, state, signals):
                started = time.perf_counter()
                test, predictions = evaluate(session, data.test)
                test_seconds = time.perf_counter() - started
                agreement = compare_scoring(session, data.test, test, predictions) if config.compare_scoring else None
            tracker.finish(state.best, test)
        except (Stopped, EarlyStopped, memory.EvaluationMemory) as end:  # all come between two steps, so the state is whole
            read_losses(state, optimizer)
            checkpoints.save(state)
            if state.step:
                end.args = (f"{end} from step {state.step} of {config.steps}, which is saved",)
            raise

    def publish() -> dict:
        """Writes all that the run leaves behind, the record last."""
        timing = state.timing() | {"test_examples_per_second": len(predictions) / test_seconds}
        record = results.make_record(session, data, described, state.history, state.best, test, timing)
        if state.resumed:
            record["provenance"]["resumed"] = state.resumed
        if state.stacked > 1:
            record["provenance"]["stacked"] = state.stacked
        if parallel.WORLD > 1:
            record["provenance"]["processes"] = parallel.WORLD
        if protection is not None:
            record["notes"].append(protection)
        if agreement is not None:
            record["scoring_agreement"] = agreement
        if config.measure_offsets:
            from adept.offset_statistics import offset_statistics

            record["offsets"] = offset_statistics(session, data.train)
        checkpoint.save(folder, session)
        results.write_predictions(folder / "predictions.jsonl", sampled(config, data.test), predictions)
        results.write(config.results_dir, record)
        checkpoints.remove()
        return record

    return parallel.first(publish)


def once(made: dict, key: Hashable, make: Callable):
    """made[key], made by the first who asks."""
    if key not in made:
        made[key] = make()
    return made[key]


def encoded(data: Data, codec: Codec) -> Data:
    return dataclasses.replace(data, train=codec.encode(data.train), validation=codec.encode(data.validation), test=codec.encode(data.test))


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
    stop: Judge | None = None,
) -> Generator[Work, Step, None]:
    """Takes `state` from where it is to the last step, yielding the work of each. Evaluates every eval_every steps and after the last one.

    Where nothing validates (MBPP), the last step is the best. Raises Stopped between two steps or within an evaluation, EarlyStopped
    after one.
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
            if stop is not None and not last and stop(step, state.history):
                raise EarlyStopped("stopped early")
        due, stopped = parallel.highest(checkpoints.due(state), signals.received or 0)
        if due:
            read_losses(state, optimizer)
            checkpoints.save(state)
        signals.check(stopped)
        if last:
            return
        started = time.perf_counter()
        work = next_work(session, optimizer, batches, multiplier(step))
        waited = time.perf_counter() - started
        done = yield work
        state.step += 1
        state.unread.append((step, done.loss, [name for batch in work.batches for name in batch.ids]))
        state.tokens += sum(batch.tokens for batch in work.batches)
        state.examples += sum(len(batch.ids) for batch in work.batches)
        state.train_seconds += waited + done.seconds
        state.stacked = max(state.stacked, done.runs)


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
    state.losses += losses
    state.unread = []
