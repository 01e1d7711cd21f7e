"""Timings side by side: the released code's way of training and evaluating, and this project's, in turns in one run.

python -m adept.bench                                                      T5-small's shape and SmolLM2-135M on the CPU
python -m adept.bench --device cuda --models t5-base t5-3b --style released ours bf16 compiled --out results/performance
python -m adept.bench --only memory                                        what a step of the paper's models needs, counted

Weights are random and of the true shape; sources have the lengths of the tasks' real rows under T5's tokenizer. Ratios are medians over
the repeats, in each of which every style does the same work once. A step is of 32 rows (on large tasks the paper's 16 x 2). --out NAME
updates NAME.json and the blocks of NAME.md.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import dataclasses
import functools
import gc
import itertools
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from adept import footprint, loop, models, results, step
from adept.config import OneLineParser, RunConfig, UserError, nearest, resolve
from adept.data import IGNORED, Codec, Example, batch_indices, load_data
from adept.embedding import PromptedEmbedding
from adept.methods import METHODS
from adept.optim import make_optimizer, parameter_groups
from adept.tasks import TASKS

# What is measured --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Profile:
    """Lengths of a task's sources: deciles (0, 10, ..., 100%) of their T5 tokens with EOS, cut to the task's limit; () are real rows."""

    deciles: tuple[int, ...]
    stands_for: tuple[str, ...]
    """Tasks of Tables 3-6 whose grid is projected from this profile: the nearest by the mean lengths of Appendix D."""
    task: str = ""
    """The task whose labels and limits are used, where it has another name."""
    fields: Mapping[str, object] = dataclasses.field(default_factory=dict)


PROFILES = {
    "sst2": Profile((4, 6, 7, 9, 11, 13, 15, 19, 25, 34, 74), ("sst2", "wic")),
    "cola": Profile((6, 9, 10, 11, 12, 13, 14, 15, 17, 21, 49), ("cola",)),
    "mnli": Profile((8, 24, 30, 34, 39, 44, 49, 54, 62, 73, 236), ("mnli", "qqp", "qnli", "stsb", "wsc", "winogrande", "scitail")),
    "rte": Profile((17, 40, 48, 54, 60, 66, 73, 86, 119, 154, 256), ("rte", "mrpc", "cb", "paws")),
    "boolq": Profile((35, 77, 95, 112, 127, 143, 160, 179, 207, 246, 256), ("boolq", "yelp_polarity")),
    "multirc": Profile((181, 235, 290, 319, 348, 348, 348, 348, 348, 348, 348), ("multirc", "record")),
    "mrqa": Profile((30, 80, 112, 136, 159, 192, 231, 316, 512, 512, 512), ("nq", "hotpotqa", "searchqa", "newsqa"), task="nq"),
    "movie_reviews": Profile(
        (), (), fields={"targets": "words", "max_source_len": 96, "batch_size": 16, "prompt_len": 7, "bottleneck": 8, "eval_rows": 200}
    ),
}
"""movie_reviews is the quickstart's step: real rows, a real tokenizer, the quickstart's fields."""


@dataclass(frozen=True)
class Style:
    """A way to train and to evaluate: fields of the run; released: padding, attention, logits and evaluation of the released code; runs:
    so many are stacked on one model, and a step's time is one run's share."""

    fields: Mapping[str, object]
    released: bool = False
    runs: int = 1


STYLES = {
    "released": Style({"group_by_length": False, "eval_batch_size": 32, "max_new_tokens": 19}, released=True),
    "ours": Style({}),
    "tf32": Style({"precision": "tf32"}),
    "bf16": Style({"precision": "bf16"}),
    "compiled": Style({"precision": "bf16", "compile": True}),
    "stacked": Style({}, runs=4),
    "stacked-bf16": Style({"precision": "bf16"}, runs=8),
    "stacked-compiled": Style({"precision": "bf16", "compile": True}, runs=8),
}

INFERENCE = {
    "pt 200": {"method": "pt", "prompt_len": 200},
    "pt 120": {"method": "pt", "prompt_len": 120},
    "dept 120/60": {"method": "dept", "prompt_len": 120, "rank": 60},
    "adept 120/39 live": {"method": "adept", "prompt_len": 120, "bottleneck": 39},
    "adept 120/39 folded": {"method": "adept", "prompt_len": 120, "bottleneck": 39, "fold": True},
}
"""Table 8's contestants, and PT of ADePT's length."""

GRIDS = {
    "Table 3": (
        "t5-base",
        (
            (("sst2", "stsb", "mrpc", "rte", "cola", "multirc", "boolq", "wic", "wsc", "cb"), 24, 30_000),
            (("mnli", "qqp", "qnli"), 1, 300_000),
        ),
    ),
    "Table 4": (
        "t5-base",
        ((("winogrande", "scitail", "paws"), 24, 30_000), (("nq", "hotpotqa", "searchqa", "newsqa", "yelp_polarity"), 1, 300_000)),
    ),
    "Tables 5, 6": ("t5-3b", ((("mnli", "record", "nq", "hotpotqa", "searchqa", "newsqa"), 1, 30_000),)),
}
"""ADePT's part of a table with one seed: (tasks, runs a task, steps a run); 24 runs are the search of Appendix E."""

STEPS_A_CYCLE = 1000
BATCHES = 5
"""Batches of different widths that stand for an epoch's."""
PARTS = ("step", "eval", "cycle", "inference", "memory")

MEMORY = (("t5-base", "rte"), ("t5-base", "nq"), ("t5-3b", "nq"), ("codegen-350m", "mbpp"), ("llama3-8b", "mbpp"))
"""Shapes and tasks whose longest step's memory is counted: 256 and 512 source tokens, and MBPP's 581 in all."""
MEMORY_ROWS, GPU_BYTES = 32, 80 * 10**9
MEMORY_CAPTION = (
    f"Memory of a training step of ADePT, {MEMORY_ROWS} rows of the longest kind: a count, not a measurement (adept/footprint.py). Saved: "
    "what the forward pass keeps for the backward pass; logits: one copy in fp32; peak: all that is alive at the step's worst moment, "
    "weights and optimizer apart."
)

# Rows and models ---------------------------------------------------------------------------------------------------------


class Digits:
    """A tokenizer of label digits that has no files. "0" is two tokens, "1" and "2" are one, as in T5's vocabulary."""

    pad_token_id, eos_token_id = 0, 1
    start_of_answer = 2
    """The id that ends every causal source; an encoder-decoder's answer starts at its pad."""
    words: ClassVar = {"0": (3, 632), "1": (209,), "2": (204,)}

    def __call__(self, text: str, **_) -> SimpleNamespace:
        return SimpleNamespace(input_ids=list(self.words[text.strip()]))

    def decode(self, ids: Sequence[int], **_) -> str:
        return " ".join(str(i) for i in ids if i not in (self.pad_token_id, self.eos_token_id))


def answering(model: nn.Module) -> nn.Module:
    """Gives a random model a head under which it answers "0" and ends, so that generation is as short as a trained model's."""
    table = model.get_input_embeddings().weight
    head = table * 1e-3
    said = (*Digits.words["0"], Digits.eos_token_id)
    # A random model's last state is nearest to the embedding of its last token.
    head[said[0]] = table[Digits.pad_token_id] + table[Digits.start_of_answer]
    for before, after in itertools.pairwise(said):
        head[after] = table[before]
    model.get_output_embeddings().weight = nn.Parameter(head, requires_grad=False)
    return model


def synthetic(profile: Profile, count: int, session: loop.Session, seed: int = 0) -> list[Example]:
    """Rows of random ids with the profile's lengths. Free text has targets of 1 to 8 tokens."""
    draw = np.random.default_rng(seed)
    labels = session.task.labels(session.config)
    lengths = np.interp(10 * draw.random(count), range(11), profile.deciles).round().astype(int)
    rows = []
    for i, length in enumerate(lengths):
        ids = draw.integers(1000, 30_000, length)
        source = (*ids[:-1].tolist(), Digits.start_of_answer)
        target = labels[i % len(labels)] if labels else ""
        answer = session.codec.target_ids(target) if labels else (*ids[: 1 + i % 8].tolist(), Digits.eos_token_id)
        rows.append(Example(str(i), "", target, (target,), source_ids=source, target_ids=tuple(answer)))
    return rows


@dataclass(frozen=True)
class ReleasedCodec(Codec):
    """Every row padded to the limit, every target to the longest; causal models get a label, most of them none, at every position."""

    def train_batch(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        batch = super().train_batch(examples)
        labels, kept = batch.pop("labels"), batch.pop("logits_to_keep", None)
        if kept is None:
            return {**batch, "labels": F.pad(labels, (0, self.max_target_len - labels.shape[1]), value=IGNORED)}
        batch["labels"] = torch.full_like(batch["input_ids"], IGNORED)
        batch["labels"][:, kept + 1] = batch.pop("shift_labels")
        return batch


def released(session: loop.Session) -> loop.Session:
    """The session as the released code would run it."""
    session.model.set_attn_implementation("eager")
    fields = {field.name: getattr(session.codec, field.name) for field in dataclasses.fields(session.codec)}
    codec = ReleasedCodec(**fields | {"multiple": session.codec.max_width})
    return dataclasses.replace(session, codec=codec, batch_losses=released_losses)


def released_losses(model: nn.Module, batch: dict[str, Tensor], *_) -> Tensor:
    return model(**{name: tensor for name, tensor in batch.items() if name != "targets"}).loss[None]


@torch.no_grad()
def released_predict(session: loop.Session, examples: list[Example]) -> list[str]:
    """In the order of the rows: generation up to 20 tokens, then a second forward pass for the evaluation loss."""
    session.model.eval()
    texts, size = [], session.config.eval_batch_size
    for start in range(0, len(examples), size):
        rows = examples[start : start + size]
        source, whole = (
            {k: v.to(session.device) for k, v in made(rows).items()} for made in (session.codec.source_batch, session.codec.train_batch)
        )
        texts += loop.generate(session, source)
        session.model(**whole).loss.item()
    session.model.train()
    return texts


@dataclass
class Contestant:
    """One style of one model on one profile's rows. sessions: of the runs that it stacks."""

    sessions: list[loop.Session]
    style: Style
    rows: list[Example]
    batches: list[list[int]]
    """Row numbers of the measured batches: of an epoch's, sorted by width, those in the middle of equal parts."""

    def __post_init__(self):
        lrs = METHODS[self.session.config.method].lrs
        self.optimizers = [make_optimizer(parameter_groups(s.model, lrs, s.config), s.config) for s in self.sessions]
        self.stack = step.Stack(self.sessions)

    @property
    def session(self) -> loop.Session:
        return self.sessions[0]

    def train(self, batches: list[list[int]] | None = None) -> None:
        """One optimizer step of each run on each of the measured batches."""

        def made(numbers: list[int]) -> list[step.Batch]:
            return [step.make_batch(session.codec, [self.rows[i] for i in numbers]) for session in self.sessions]

        self.session.model.train()
        for ready in loop.ahead(made, batches or self.batches, 2):
            works = [step.Work(*work, 0.0) for work in zip(self.sessions, self.optimizers, [(batch,) for batch in ready], strict=True)]
            done = step.train_step(works, self.stack)
            if self.style.released:
                done[0].loss.item()  # transformers' Trainer looks whether each is finite

    def predict(self, examples: list[Example]) -> list[str]:
        return released_predict(self.session, examples) if self.style.released else loop.predict(self.session, examples)

    def lengths(self) -> tuple[int, int, list[tuple[int, int]]]:
        """(cells, tokens among them that are no padding, (source with prompt, target) lengths of every row) of the measured batches."""
        cells = tokens = 0
        pairs = []
        for numbers in self.batches:
            examples = [self.rows[i] for i in numbers]
            mask = self.session.codec.train_batch(examples)["attention_mask"]
            cells, tokens = cells + mask.numel(), tokens + int(mask.sum())
            pairs += [(len(self.session.codec.prompt_ids) + len(e.source_ids), len(e.target_ids)) for e in examples]
        return cells, tokens, pairs


def measured_batches(rows: list[Example], config: RunConfig, count: int = BATCHES) -> list[list[int]]:
    """Row numbers of `count` batches that stand for an epoch's: by width, the middle ones of `count` equal parts."""
    lengths = [row.length for row in rows]
    order = batch_indices(lengths, config.batch_size, config.seed, group_by_length=config.group_by_length)
    epoch = [batch for batch in itertools.islice(order, -(-len(rows) // config.batch_size)) if len(batch) == config.batch_size]
    epoch.sort(key=lambda batch: max(lengths[i] for i in batch))
    return [epoch[int((k + 0.5) * len(epoch) / count)] for k in range(count)]


def base_model(name: str, device: torch.device) -> tuple[nn.Module, object]:
    """(model without this project's changes to its arithmetic, tokenizer)."""
    if name == models.BUNDLED:
        return models.load(resolve({"task": "movie_reviews", "model": name}))
    return answering(models.random_model(name, device)), Digits()


def enter(style: Style, model: nn.Module, tokenizer, profile: str, name: str, device: str, **fields) -> list[loop.Session]:
    """The sessions of that style. The frozen weights are shared with `model` as far as their precision allows."""
    setup = PROFILES[profile]
    common = {"method": "adept", "batch_size": 32, "grad_accum": 1}
    chosen = {"task": setup.task or profile, "model": name, "device": device, **common, **setup.fields, **style.fields, **fields}
    config = resolve(chosen)
    shared = {id(p): p for p in model.parameters()} if config.precision != "bf16" else {}
    model = copy.deepcopy(model, shared)
    if style.released:
        return [released(loop.adapt(config, model, tokenizer))]
    models.spare(model)
    copies = [models.light_copy(model) for _ in range(style.runs)]
    return [loop.adapt(config, own, tokenizer) for own in copies]


# Measuring ---------------------------------------------------------------------------------------------------------------


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of work(), the device's queue drained before and after."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turns(works: Mapping[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """{name: seconds of each repeat}. A repeat runs every work once, beginning with another one each time."""
    times: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for repeat in range(repeats):
        for k in range(len(names)):
            name = names[(k + repeat) % len(names)]
            times[name].append(seconds(works[name], device))
    return times


def ratio(base: list[float], other: list[float]) -> dict[str, float]:
    """How many times faster than the base: median, lowest and highest over the repeats."""
    quotients = [b / o for b, o in zip(base, other, strict=True)]
    return {"median": statistics.median(quotients), "low": min(quotients), "high": max(quotients)}


def step_memory(contestant: Contestant, batch: list[int]) -> int:
    """Bytes that a training step on that batch needs above what is held before it; 0 where the system does not tell."""
    gc.collect()
    device = contestant.session.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        contestant.train([batch])
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak becomes the present size
        before = resident()["VmRSS"]
        contestant.train([batch])
        return resident()["VmHWM"] - before
    except (OSError, AttributeError):  # not Linux
        return 0


class Operations(TorchDispatchMode):
    """Counts what is dispatched to the device, views aside: about the kernels that a GPU is asked to launch in eager mode."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += not function.is_view
        return function(*arguments, **(keywords or {}))


def operations(contestant: Contestant) -> int | None:
    """Of a training step, one run's share; None where it is compiled, into fewer."""
    if contestant.session.config.compile:
        return None
    with Operations() as counted:
        contestant.train(contestant.batches[:1])
    return counted.count // len(contestant.sessions)


def resident() -> dict[str, int]:
    """Bytes of this process: {"VmRSS": now, "VmHWM": at the peak}. Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {name: 1024 * int(rest.split()[0]) for name, rest in (line.split(":") for line in lines) if name in ("VmRSS", "VmHWM")}


def free_memory(device: torch.device) -> int:
    """Bytes that the device could still give."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return 1024 * int(fields["MemAvailable"].split()[0])


def matmul_peak(device: torch.device, precision: str) -> float:
    """FLOP a second of the best of several square matrix products in that precision."""
    size, dtype = (8192 if device.type == "cuda" else 1536), torch.bfloat16 if precision == "bf16" else torch.float32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / min(seconds(lambda: a @ b, device) for _ in range(8))


def step_flops(session: loop.Session, pairs: list[tuple[int, int]]) -> float:
    """FLOP that training on rows of these lengths needs, padding not counted. Frozen weights have no gradients, so backward costs what
    forward does, except that both sides of an attention product need one."""
    linear = attention = 0.0
    for source, target in pairs:
        one_linear, one_attention = models.forward_flops(session.model.config, source, target, session.shared_prefix)
        linear, attention = linear + one_linear, attention + one_attention
    return 2 * linear + 3 * attention


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters, trained ones included."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def too_large(name: str, styles: Sequence[str], device: torch.device) -> str | None:
    """Why a model cannot be held once in fp32 and once more for each style in bf16, or None."""
    if name == models.BUNDLED:
        return None
    copies = 4 + 2 * sum(STYLES[style].fields.get("precision") == "bf16" for style in styles)
    needed = copies * sum(p.numel() for p in models.random_model(name, "meta").parameters())
    free = free_memory(device)
    return f"the weights need {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are free" if needed > 0.9 * free else None


def step_too_large(contestant: Contestant) -> str | None:
    """Why a step on the widest batch does not fit, judged by one on two of its rows, or None."""
    widest = contestant.batches[-1]
    needed = step_memory(contestant, widest[:2]) * len(widest) / 2
    free = free_memory(contestant.session.device)
    return f"a step needs about {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are free" if needed > 0.9 * free else None


def measure_model(name: str, profile: str, styles: Sequence[str], parts: set[str], repeats: int, device: torch.device) -> Iterator[dict]:
    """One row of the result a style."""
    described = {style: {"model": name, "profile": profile, "style": style} for style in styles}
    if reason := too_large(name, styles, device):
        yield from ({**entry, "skipped": reason} for entry in described.values())
        return
    model, tokenizer = base_model(name, device)
    contestants: dict[str, Contestant] = {}
    rows, validation = None, None
    for style in styles:
        sessions = enter(STYLES[style], model, tokenizer, profile, name, str(device))
        rows, validation = (rows, validation) if rows else make_rows(profile, sessions[0])  # the same rows for all
        contestant = Contestant(sessions, STYLES[style], rows, measured_batches(rows, sessions[0].config))
        if reason := step_too_large(contestant):
            yield {**described[style], "skipped": reason}
        else:
            contestants[style] = contestant
    precisions = {contestant.session.config.precision for contestant in contestants.values()}
    peaks = {precision: matmul_peak(device, precision) for precision in precisions}

    training, evaluation, strings = {}, {}, {}
    if parts & {"step", "cycle"}:
        for contestant in contestants.values():  # warm up: memory, and compilation of every shape
            contestant.train(contestant.batches if contestant.session.config.compile else contestant.batches[-1:])
        training = in_turns({style: contestant.train for style, contestant in contestants.items()}, repeats, device)
        training = {style: [t / STYLES[style].runs for t in times] for style, times in training.items()}
    if parts & {"eval", "cycle"}:

        def evaluate(style: str) -> None:
            strings[style] = contestants[style].predict(validation)

        evaluation = in_turns({style: functools.partial(evaluate, style) for style in contestants}, repeats, device)
    cycles = {
        style: [cycle_seconds(t / BATCHES, e, profile, len(validation)) for t, e in zip(training[style], evaluation[style], strict=True)]
        for style in training.keys() & evaluation.keys()
    }
    for style, contestant in contestants.items():
        config, first = contestant.session.config, next(iter(contestants))
        weights = weight_bytes(contestant.session.model)
        entry = {**described[style], "precision": config.precision, "repeats": repeats, "first": first, "weight_bytes": weights}
        if training:
            cells, tokens, pairs = contestant.lengths()
            per_step = statistics.median(training[style]) / BATCHES
            flops, peak = step_flops(contestant.session, pairs) / BATCHES, peaks[config.precision]
            entry["step"] = {
                "seconds": per_step, "steps_per_second": 1 / per_step, "examples_per_second": config.batch_size / per_step,
                "tokens_per_second": tokens / BATCHES / per_step, "padding": 1 - tokens / cells, "flops": flops, "peak_flops": peak,
                "utilisation": flops / per_step / peak, "memory_bytes": step_memory(contestant, contestant.batches[-1]),
                "operations": operations(contestant), "times_first": ratio(training[first], training[style]),
            }  # fmt: skip
        if evaluation:
            taken = statistics.median(evaluation[style])
            same = [a == b for a, b in zip(strings[first], strings[style], strict=True)]
            entry["eval"] = {
                "rows": len(validation), "seconds": taken, "rows_per_second": len(validation) / taken,
                "same_strings": sum(same) / len(same), "times_first": ratio(evaluation[first], evaluation[style]),
            }  # fmt: skip
        if style in cycles:
            shares = [1 - STEPS_A_CYCLE * t / BATCHES / whole for t, whole in zip(training[style], cycles[style], strict=True)]
            entry["cycle"] = {
                "seconds": statistics.median(cycles[style]), "evaluation_share": statistics.median(shares),
                "times_first": ratio(cycles[first], cycles[style]),
            }  # fmt: skip
        yield entry


def make_rows(profile: str, session: loop.Session) -> tuple[list[Example], list[Example]]:
    """(training rows, validation rows): real ones where the profile has no deciles."""
    setup, count = PROFILES[profile], 50 * session.config.batch_size
    if setup.deciles:
        return synthetic(setup, count, session), synthetic(setup, min(validation_size(profile), 256), session, seed=1)
    data = load_data(session.task, session.config)
    return session.codec.encode(data.train[:count]), session.codec.encode(data.validation)


def validation_size(profile: str) -> int:
    """Validation rows of the complete task."""
    return TASKS[PROFILES[profile].task or profile].sizes[1]


def cycle_seconds(step: float, evaluation: float, profile: str, measured: int) -> float:
    """1,000 steps and an evaluation of the task's whole validation set, from one step and `measured` of its rows."""
    whole = validation_size(profile) if PROFILES[profile].deciles else measured
    return STEPS_A_CYCLE * step + evaluation * whole / measured


def measure_inference(name: str, profile: str, repeats: int, device: torch.device) -> Iterator[dict]:
    """Table 8's comparison on the rows of a profile: predictions a second."""
    model, tokenizer = base_model(name, device)
    sessions = {
        label: enter(STYLES["ours"], model, tokenizer, profile, name, str(device), **fields)[0] for label, fields in INFERENCE.items()
    }
    examples = synthetic(PROFILES[profile], 256, next(iter(sessions.values())), seed=1)
    works = {label: lambda session=session: loop.predict(session, examples) for label, session in sessions.items()}
    for work in works.values():
        work()
    times = in_turns(works, repeats, device)
    for label, session in sessions.items():
        entry = {"model": name, "profile": profile, "contestant": label, "repeats": repeats, "rows": len(examples)}
        entry |= {"rows_per_second": len(examples) / statistics.median(times[label]), "times_first": ratio(times["pt 200"], times[label])}
        if session.config.fold:
            (hook,) = [m for m in session.model.modules() if isinstance(m, PromptedEmbedding)]
            entry["fold_bytes"] = hook.weight.numel() * hook.weight.element_size()
            entry["fold_seconds"] = min(seconds(copy.deepcopy(hook).fold, device) for _ in range(3))
        yield entry


def count_memory(name: str, task: str) -> Iterator[dict]:
    """A step of ADePT in fp32 and bf16, with and without checkpointed activations."""
    for precision, checkpointed in itertools.product(("fp32", "bf16"), (False, True)):
        config = resolve(
            {"task": task, "model": name, "method": "adept", "batch_size": MEMORY_ROWS, "grad_accum": 1, "precision": precision,
             "checkpoint_activations": checkpointed, "allow_code_execution": True}
        )  # fmt: skip
        count, logits = footprint.count_run(config, Digits())
        entry = {"model": name, "task": task, "precision": precision, "checkpointed": checkpointed, "rows": MEMORY_ROWS}
        entry |= {f"{field}_bytes": value for field, value in dataclasses.asdict(count).items()}
        entry |= {"logits_bytes": logits, "total_bytes": count.total}
        yield entry | {"largest_batch": footprint.largest_batch(config, Digits(), GPU_BYTES)}


# Report ------------------------------------------------------------------------------------------------------------------


def project(entries: list[dict]) -> list[dict]:
    """Hours of each table's grid and style on one such device, by extrapolation; only where every task's profile was measured."""
    measured = {(e["model"], e["profile"], e["style"]): e for e in entries if "step" in e}
    projected = []
    for table, (model, parts) in GRIDS.items():
        for style in STYLES:
            hours, known = 0.0, True
            for tasks, runs, steps in parts:
                for task in tasks:
                    (profile,) = [name for name, profile in PROFILES.items() if task in profile.stands_for]
                    entry = measured.get((model, profile, style))
                    known &= entry is not None
                    if entry:
                        per_step = entry["cycle"]["seconds"] / STEPS_A_CYCLE if "cycle" in entry else entry["step"]["seconds"]
                        hours += runs * steps * per_step / 3600
            if known:
                runs, steps = totals(parts)
                projected.append({"table": table, "model": model, "style": style, "runs": runs, "steps": steps, "hours": hours})
    return projected


def totals(parts: Sequence[tuple[tuple[str, ...], int, int]]) -> tuple[int, int]:
    """(runs, steps of all runs) of a grid."""
    return sum(len(tasks) * runs for tasks, runs, _ in parts), sum(len(tasks) * runs * steps for tasks, runs, steps in parts)


def times(entry: dict, part: str) -> str:
    """ "3.1 (2.9-3.2)" times the first style's speed."""
    if part not in entry or entry["first"] == entry["style"]:
        return "1" if part in entry else "–"
    quotient = entry[part]["times_first"]
    return f"**{quotient['median']:.2f}** ({quotient['low']:.2f}-{quotient['high']:.2f})"


def line(cells: Sequence[object]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table and an empty line; nothing where there are no rows."""
    return [line(head), line(["---"] * len(head)), *map(line, rows), ""] if rows else []


def markdown(result: dict) -> str:
    """The tables of one device's measurements."""
    machine, entries = result["machine"], [e for e in result["rows"] if "skipped" not in e]
    key = ("model", "profile", "style")
    lines = [f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}, transformers {machine['transformers']}.", ""]
    lines += table(
        ["model", "lengths", "style", "steps/s", "examples/s", "tokens/s", "padding", "utilisation", "operations", "weights GB",
         "step GB", "times the first"],
        [
            [*(e[k] for k in key), f"{(s := e['step'])['steps_per_second']:.3g}", f"{s['examples_per_second']:.3g}",
             f"{s['tokens_per_second']:,.0f}", f"{100 * s['padding']:.0f}%", f"{100 * s['utilisation']:.0f}%",
             f"{s['operations']:,}" if s["operations"] else "–", f"{e['weight_bytes'] / 1e9:.2f}",
             f"{s['memory_bytes'] / 1e9:.2f}", times(e, "step")]
            for e in entries if "step" in e
        ],
    )  # fmt: skip
    lines += table(
        ["model", "lengths", "style", "rows", "evaluation s", "rows/s", "same strings", "times the first", "share of a cycle",
         "cycle, times the first"],
        [
            [*(e[k] for k in key), (s := e["eval"])["rows"], f"{s['seconds']:.3g}", f"{s['rows_per_second']:.3g}",
             f"{100 * s['same_strings']:.0f}%", times(e, "eval"),
             f"{100 * e['cycle']['evaluation_share']:.1f}%" if "cycle" in e else "–", times(e, "cycle")]
            for e in entries if "eval" in e
        ],
    )  # fmt: skip
    lines += table(
        ["model", "lengths", "method", "rows/s", "times PT 200", "fold"],
        [
            [e["model"], e["profile"], e["contestant"], f"{e['rows_per_second']:.3g}",
             f"{e['times_first']['median']:.2f} ({e['times_first']['low']:.2f}-{e['times_first']['high']:.2f})",
             f"{1000 * e['fold_seconds']:.0f} ms, {e['fold_bytes'] / 1e6:.0f} MB" if "fold_seconds" in e else ""]
            for e in result["inference"]
        ],
    )  # fmt: skip
    lines += table(
        ["grid", "model", "style", "runs", "steps", "hours, extrapolated"],
        [[p["table"], p["model"], p["style"], p["runs"], f"{p['steps']:,}", f"{p['hours']:,.0f}"] for p in project(entries)],
    )
    memory = table(
        ["model", "task", "precision", "checkpointed", "weights GB", "optimizer MB", "saved GB", "logits GB", "peak GB", "all GB",
         "fits 80 GB", "largest batch"],
        [
            [e["model"], e["task"], e["precision"], "yes" if e["checkpointed"] else "", f"{e['weights_bytes'] / 1e9:.2f}",
             f"{e['optimizer_bytes'] / 1e6:.1f}", *(f"{e[f'{k}_bytes'] / 1e9:.2f}" for k in ("saved", "logits", "peak", "total")),
             "yes" if e["total_bytes"] <= GPU_BYTES else "no", e["largest_batch"] or "none"]
            for e in result["memory"]
        ],
    )  # fmt: skip
    if memory:
        lines += [MEMORY_CAPTION, "", *memory]
    lines += [f"- {e['model']}, {e['profile']}, {e['style']}: not measured, {e['skipped']}" for e in result["rows"] if "skipped" in e]
    return "\n".join(lines).strip() + "\n"


def machine(device: torch.device) -> dict:
    """What the figures were measured on, and by which commit."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        name = next((text.split(":")[1].strip() for text in lines if text.startswith("model name")), platform.processor())
        name = f"{os.cpu_count()} CPU cores ({name}, {torch.backends.cpu.get_cpu_capability()})"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": results.package_version("transformers"),
        **results.git_state(),
    }


def merged(old: dict, new: dict) -> dict:
    """The new measurements, and the old ones of what was not measured again."""

    def together(name: str, key: tuple[str, ...]) -> list[dict]:
        again = {tuple(row[k] for k in key) for row in new[name]}
        return [row for row in old.get(name, []) if tuple(row[k] for k in key) not in again] + new[name]

    rows, inference = together("rows", ("model", "profile", "style")), together("inference", ("model", "profile", "contestant"))
    memory = together("memory", ("model", "task", "precision", "checkpointed"))
    return {"machine": new["machine"], "rows": rows, "inference": inference, "memory": memory}


def save(name: str, kind: str, result: dict) -> None:
    """Puts the device's measurements into NAME.json and their tables between the marks of that device in NAME.md."""
    path, page = Path(f"{name}.json"), Path(f"{name}.md")
    whole = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    whole[kind] = merged(whole.get(kind, {}), result)
    results.write_atomically(path, json.dumps(whole, indent=1) + "\n")
    text = page.read_text(encoding="utf-8") if page.exists() else f"# Performance\n\n<!-- table: {kind} -->\n<!-- end -->\n"
    block = re.compile(rf"(<!-- table: {kind} -->\n).*?(<!-- end -->)", re.DOTALL)
    results.write_atomically(page, block.sub(lambda match: match[1] + markdown(whole[kind]) + match[2], text))


def main(arguments: list[str]) -> int:
    parser = OneLineParser(prog="python -m adept.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 [cpu]")
    parser.add_argument(
        "--models", nargs="+", help=f"of {', '.join([*models.SHAPES, models.BUNDLED])} [cpu: t5-small and smollm2-135m; else t5-base]"
    )
    parser.add_argument(
        "--profiles", nargs="+", help=f"of {', '.join(PROFILES)} [cpu: rte sst2 boolq; else all; smollm2-135m: movie_reviews]"
    )
    parser.add_argument(
        "--style", nargs="+", default=["released", "ours"], help=f"of {', '.join(STYLES)}; ratios are to the first [released ours]"
    )
    parser.add_argument("--only", nargs="+", default=list(PARTS), help=f"of {', '.join(PARTS)} [all]")
    parser.add_argument("--repeats", type=int, default=3, help="of which medians are taken [3]")
    parser.add_argument("--out", metavar="NAME", help="update NAME.json and NAME.md")
    try:
        chosen = parser.parse_args(arguments)
        on_cpu = chosen.device == "cpu"
        names = chosen.models or (["t5-small", models.BUNDLED] if on_cpu else ["t5-base"])
        lengths = chosen.profiles or (["rte", "sst2", "boolq"] if on_cpu else [name for name, p in PROFILES.items() if p.deciles])
        for words, known in ((names, [*models.SHAPES, models.BUNDLED]), (lengths, PROFILES), (chosen.style, STYLES), (chosen.only, PARTS)):
            for word in words:
                if word not in known:
                    raise UserError(f"unknown name '{word}'; {nearest(word, known)}")
        if chosen.repeats < 1:
            raise UserError(f"--repeats must be >= 1, not {chosen.repeats}")
        device, parts = loop.pick_device(chosen.device), set(chosen.only)
        result: dict = {"machine": machine(device), "rows": [], "inference": [], "memory": []}
        for name, task in MEMORY if "memory" in parts else []:
            result["memory"] += count_memory(name, task)
            print(f"counted {name}, {task}", file=sys.stderr, flush=True)
        for name in names:
            profiles = lengths if name != models.BUNDLED else ["movie_reviews"]
            for profile in profiles if parts & {"step", "eval", "cycle"} else []:
                result["rows"] += measure_model(name, profile, chosen.style, parts, chosen.repeats, device)
                print(f"measured {name}, {profile}", file=sys.stderr, flush=True)
            if "inference" in parts and name != models.BUNDLED:
                result["inference"] += measure_inference(name, "sst2", chosen.repeats, device)
            if chosen.out:
                save(chosen.out, device.type, result)
        print(markdown(result))
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
