"""Measures training steps, evaluation, cycles and inference of a model, the styles in turns."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch

from adept.bench.contestants import (
    BATCHES,
    Contestant,
    load_base_model,
    open_style_sessions,
    representative_batches,
    style_config,
)
from adept.bench.profiles import INFERENCE, PROFILES, STEPS_PER_CYCLE, STYLES, validation_size
from adept.bench.resources import (
    count_operations,
    measure_step_memory,
    step_flops,
    weight_bytes,
    why_model_does_not_fit,
    why_step_does_not_fit,
)
from adept.bench.synthetic import synthetic_examples
from adept.bench.timing import CLOCKS, Clock, measure_matmul_peak, speedup, time_call, time_in_turns
from adept.bench.trainer import TrainerContestant, open_trainer_session
from adept.data.dataset import load_data
from adept.data.example import Example
from adept.training.evaluation import predict
from adept.training.session import Session

# Training and evaluation, by style ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timings:
    """Seconds of each repeat, by style. A kind of work that was not measured has no styles."""

    training: dict[str, list[float]]  # the measured batches, one run's share
    evaluation: dict[str, list[float]]  # all validation examples
    cycles: dict[str, list[float]]
    predictions: dict[str, list[str]]  # of the validation examples, in their order


def measure_model(
    name: str,
    profile: str,
    styles: Sequence[str],
    parts: Collection[str],
    repeats: int,
    device: torch.device,
    method: str = "adept",
    clock: str = "wall",
) -> Iterator[dict]:
    """Yields one row of the result for each style: its measurements, or "skipped" with the reason.

    parts: what to measure, of "step", "eval" and "cycle". clock: a name of CLOCKS, for training steps and evaluation.
    """
    of_method = {} if method == "adept" else {"method": method}
    keys = {style: {"model": name, "profile": profile, "style": style, **of_method} for style in styles}
    if reason := why_model_does_not_fit(name, styles, device):
        yield from ({**key, "skipped": reason} for key in keys.values())
        return
    contestants, validation, skipped = open_contestants(name, profile, styles, device, method)
    yield from ({**keys[style], "skipped": reason} for style, reason in skipped.items())
    precisions = {contestant.session.config.precision for contestant in contestants.values()}
    peaks = {precision: measure_matmul_peak(device, precision, CLOCKS[clock]) for precision in precisions}
    timings = take_timings(contestants, validation, profile, parts, repeats, device, CLOCKS[clock])
    for style, contestant in contestants.items():
        precision, first = contestant.session.config.precision, next(iter(contestants))
        row = {
            **keys[style],
            "precision": precision,
            "repeats": repeats,
            "first": first,
            **({} if clock == "wall" else {"clock": clock}),
            "weight_bytes": weight_bytes(contestant.session.model),
        }
        if timings.training:
            row["step"] = describe_step(contestant, timings.training[style], peaks[precision])
            row["step"]["times_first"] = speedup(timings.training[first], timings.training[style])
        if timings.evaluation:
            row["eval"] = describe_evaluation(timings, style, first)
        if timings.cycles:
            row["cycle"] = describe_cycle(timings, style, first)
        yield row


def open_contestants(
    name: str, profile: str, styles: Sequence[str], device: torch.device, method: str = "adept"
) -> tuple[dict[str, Contestant], list[Example], dict[str, str]]:
    """Opens a contestant for each style, all on the same examples.

    Returns ({style: contestant}, validation examples, {style: why its training step does not fit into memory}).
    """
    model, tokenizer = load_base_model(name, device)
    contestants: dict[str, Contestant] = {}
    skipped: dict[str, str] = {}
    training: list[Example] = []
    validation: list[Example] = []
    for style in styles:
        kind = TrainerContestant if STYLES[style].trainer else Contestant
        if STYLES[style].trainer:
            config = style_config(style, profile, name, str(device), method)
            sessions = [open_trainer_session(config, model, tokenizer)]
        else:
            sessions = open_style_sessions(style, model, tokenizer, profile, name, str(device), method=method)
        if not training:
            training, validation = make_examples(profile, sessions[0])
        batches = representative_batches(training, sessions[0].config)
        contestant = kind(sessions, STYLES[style], training, batches)
        if reason := why_step_does_not_fit(contestant):
            skipped[style] = reason
        else:
            contestants[style] = contestant
    return contestants, validation, skipped


def make_examples(profile: str, session: Session) -> tuple[list[Example], list[Example]]:
    """(training examples, validation examples), encoded; synthetic ones for a profile that has deciles, else real."""
    setup, count = PROFILES[profile], 50 * session.config.batch_size
    if setup.deciles:
        validation_count = min(validation_size(profile), 256)
        return (
            synthetic_examples(setup, count, session),
            synthetic_examples(setup, validation_count, session, seed=1),
        )
    data = load_data(session.task, session.config)
    return session.codec.encode(data.train[:count]), session.codec.encode(data.validation)


def take_timings(
    contestants: dict[str, Contestant],
    validation: list[Example],
    profile: str,
    parts: Collection[str],
    repeats: int,
    device: torch.device,
    clock: Clock,
) -> Timings:
    """Times what `parts` needs: training for "step" and "cycle", evaluation for "eval" and "cycle"."""
    training, evaluation, predictions = {}, {}, {}
    if {"step", "cycle"} & set(parts):
        # Warm up: allocate memory. A GPU's libraries and compiled steps also choose kernels for each batch's shape.
        for contestant in contestants.values():
            by_shape = device.type != "cpu" or contestant.session.config.compile
            contestant.train(contestant.batches if by_shape else contestant.batches[-1:])
        together = time_in_turns({style: c.train for style, c in contestants.items()}, repeats, device, clock)
        training = {style: [t / STYLES[style].runs for t in times] for style, times in together.items()}
    if {"eval", "cycle"} & set(parts):

        def evaluate(style: str) -> None:
            predictions[style] = contestants[style].predict(validation)

        works = {style: lambda style=style: evaluate(style) for style in contestants}
        evaluation = time_in_turns(works, repeats, device, clock)
    cycles = {
        style: [
            cycle_seconds(train_time / BATCHES, eval_time, profile, len(validation))
            for train_time, eval_time in zip(training[style], evaluation[style], strict=True)
        ]
        for style in training.keys() & evaluation.keys()
    }
    return Timings(training, evaluation, cycles, predictions)


def cycle_seconds(step: float, evaluation: float, profile: str, measured: int) -> float:
    """Seconds of a cycle: 1,000 steps and an evaluation of the task's whole validation set.

    step: seconds of one step. evaluation: seconds of `measured` validation rows.
    """
    rows = validation_size(profile) if PROFILES[profile].deciles else measured
    return STEPS_PER_CYCLE * step + evaluation * rows / measured


def describe_step(contestant: Contestant, seconds: list[float], peak: float) -> dict:
    """The "step" part of a row, without "times_first".

    seconds: of the measured batches, by repeat. peak: FLOP per second of a matrix product.
    """
    config = contestant.session.config
    cells, tokens, row_lengths = contestant.lengths()
    per_step = statistics.median(seconds) / BATCHES
    flops = step_flops(contestant.session, row_lengths) / BATCHES
    return {
        "seconds": per_step,
        "steps_per_second": 1 / per_step,
        "examples_per_second": config.batch_size / per_step,
        "tokens_per_second": tokens / BATCHES / per_step,
        "padding": 1 - tokens / cells,
        "flops": flops,
        "peak_flops": peak,
        "utilisation": flops / per_step / peak,
        "memory_bytes": measure_step_memory(contestant, contestant.batches[-1]),
        "operations": count_operations(contestant),
    }


def describe_evaluation(timings: Timings, style: str, first: str) -> dict:
    """The "eval" part of a row. first: the style that this one is compared with."""
    seconds = statistics.median(timings.evaluation[style])
    same = [a == b for a, b in zip(timings.predictions[first], timings.predictions[style], strict=True)]
    return {
        "rows": len(same),
        "seconds": seconds,
        "rows_per_second": len(same) / seconds,
        "same_strings": sum(same) / len(same),
        "times_first": speedup(timings.evaluation[first], timings.evaluation[style]),
    }


def describe_cycle(timings: Timings, style: str, first: str) -> dict:
    """The "cycle" part of a row. first: the style that this one is compared with."""
    cycles = timings.cycles[style]
    shares = [
        1 - STEPS_PER_CYCLE * train_time / BATCHES / cycle
        for train_time, cycle in zip(timings.training[style], cycles, strict=True)
    ]
    return {
        "seconds": statistics.median(cycles),
        "evaluation_share": statistics.median(shares),
        "times_first": speedup(timings.cycles[first], cycles),
    }


# Inference, by method -------------------------------------------------------------------------------------------------


def measure_inference(name: str, profile: str, repeats: int, device: torch.device) -> Iterator[dict]:
    """Yields one row of the result for each method of INFERENCE: predictions per second on rows of a profile."""
    model, tokenizer = load_base_model(name, device)
    sessions = {
        label: open_style_sessions("ours", model, tokenizer, profile, name, str(device), **fields)[0]
        for label, fields in INFERENCE.items()
    }
    examples = synthetic_examples(PROFILES[profile], 256, next(iter(sessions.values())), seed=1)
    works = {label: lambda session=session: predict(session, examples) for label, session in sessions.items()}
    for work in works.values():  # warm up
        work()
    times = time_in_turns(works, repeats, device)
    for label, session in sessions.items():
        row = {
            "model": name,
            "profile": profile,
            "contestant": label,
            "repeats": repeats,
            "rows": len(examples),
            "rows_per_second": len(examples) / statistics.median(times[label]),
            "times_first": speedup(times["pt 200"], times[label]),
        }
        if session.config.get("fold"):
            hook = session.prompted_embedding
            row["fold_bytes"] = hook.weight.numel() * hook.weight.element_size()
            row["fold_seconds"] = min(time_call(copy.deepcopy(hook).fold, device) for _ in range(3))
        yield row
