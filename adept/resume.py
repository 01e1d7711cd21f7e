"""A run's training state and its resumable checkpoints: a killed run goes on as if nothing had happened.

A checkpoint is one safetensors file, `<run folder>/checkpoint.safetensors`; the one before it is kept as
`checkpoint.previous.safetensors`. Its tensors are the trained parameters, the best ones so far, AdamW's moments, the losses since the last
evaluation and torch's random generators. Its metadata hold "schema", "crc" (of everything else) and "state", a JSON object with whose
run it is and the rest of the state. Nothing is pickled.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from adept import checkpoint, files, parallel, results
from adept.config import UserError, first_line
from adept.track import say

if TYPE_CHECKING:
    from adept.loop import Session

SCHEMA = 2
SAVE_SECONDS = 600.0
"""A checkpoint is written at least this often, so that a slow machine loses no more."""


@dataclass
class TrainState:
    """What training changes in a run, besides its session's parameters, its optimizer and the random generators."""

    step: int = 0  # optimizer steps done
    history: list[dict] = field(default_factory=list)  # {"step", "train_loss", "validation", "seconds"} of each evaluation
    best: dict = field(default_factory=dict)  # {"step", "validation", "weights"}; empty before the first evaluation
    losses: list[float] = field(default_factory=list)  # of each step since the last evaluation
    shown: int = 0  # so many of them are in metrics.jsonl
    unread: list[tuple[int, Tensor, list[str]]] = field(default_factory=list)  # the newest, on the device: reading each would stall a GPU
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    examples: int = 0
    tokens: int = 0  # that were no padding
    logged: int = 0  # bytes of metrics.jsonl
    resumed: list[dict] = field(default_factory=list)  # {"step", "git", "dirty"}: where it was resumed, and the code until there
    stacked: int = 1  # most runs that were computed together with it, itself included

    @property
    def evaluated(self) -> bool:
        """The parameters as they are now have been evaluated."""
        return bool(self.history) and self.history[-1]["step"] == self.step

    def timing(self) -> dict[str, float]:
        """The record's "timing": what counts is in the result, lost steps of a killed process do not."""
        per_second = 1 / self.train_seconds if self.train_seconds else 0.0
        return {
            "train_seconds": self.train_seconds,
            "eval_seconds": self.eval_seconds,
            "examples_per_second": self.examples * per_second,
            "tokens_per_second": int(self.tokens) * per_second,
            "steps_per_second": self.step * per_second,
        }


def is_seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def is_best(value: Any) -> bool:
    return value == {} or (isinstance(value, dict) and results.is_count(value.get("step")) and results.is_scores(value.get("validation")))


PLAIN: dict[str, Callable[[Any], bool]] = {
    "step": results.is_count,
    "history": results.is_history,
    "best": is_best,
    "shown": results.is_count,
    "train_seconds": is_seconds,
    "eval_seconds": is_seconds,
    "examples": results.is_count,
    "tokens": results.is_count,
    "logged": results.is_count,
    "resumed": lambda value: isinstance(value, list) and all(isinstance(entry, dict) for entry in value),
    "stacked": results.is_count,
}
"""TrainState's fields that are JSON, and what they look like. The losses become a tensor, the best weights too; nothing is unread in a
checkpoint."""

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of a parameter: how many gradients it had, and their running means."""


class Unusable(Exception):
    """Why a file is no checkpoint of this run."""


class Checkpoints:
    """The resumable checkpoints of one run."""

    def __init__(self, folder: Path, session: Session, optimizer: torch.optim.Optimizer | None, fingerprint: str):
        """folder: the run's; fingerprint: of its data."""
        self.newest, self.previous = folder / "checkpoint.safetensors", folder / "checkpoint.previous.safetensors"
        self.metrics = folder / "metrics.jsonl"
        self.session, self.optimizer = session, optimizer
        self.identity = {
            "run_id": session.config.run_id,
            "data_fingerprint": fingerprint,
            "model_revision": getattr(session.model.config, "_commit_hash", None),
        }
        self.saved = time.monotonic()
        self.damaged = False  # the newest, so that the one before is still the last good one

    def due(self, state: TrainState) -> bool:
        every = self.session.config.save_every
        if not every or not state.step:
            return False
        return state.step % every == 0 or time.monotonic() - self.saved > SAVE_SECONDS

    def save(self, state: TrainState) -> None:
        """Writes the newest checkpoint and keeps the one before. Raises UserError when the disk refuses. Before the first step: nothing."""
        if not state.step:
            return
        generators, own = random_state(self.session.device)
        everyones = parallel.each(lambda: own)
        parallel.first(lambda: self.write(state, generators, everyones))
        self.saved = time.monotonic()

    def write(self, state: TrainState, generators: dict, everyones: list[dict[str, Tensor]]) -> None:
        """generators: random_state() of python's and numpy's; everyones: that of torch's, of each process."""
        if self.metrics.exists():
            with files.told(self.metrics), self.metrics.open("rb+") as file:
                os.fsync(file.fileno())
                state.logged = file.seek(0, os.SEEK_END)
        best = {name: value for name, value in state.best.items() if name != "weights"}
        plain = {name: getattr(state, name) for name in PLAIN} | {"best": best}
        tensors = {stored_as(name, rank): value for rank, values in enumerate(everyones) for name, value in values.items()}
        tensors["losses"] = torch.tensor(state.losses, dtype=torch.float64)
        for name, parameter in self.session.trainables.items():
            tensors[f"weights/{name}"] = parameter.detach()
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer/{key}/{name}"] = value
        for name, weights in state.best.get("weights", {}).items():
            tensors[f"best/{name}"] = weights
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        text = json.dumps({**self.identity, "code": results.git_state(), "state": plain, "random": generators})
        content = save(tensors, {"schema": str(SCHEMA), "crc": checksum(tensors, text), "state": text})
        files.write_atomically(self.newest, content, previous=None if self.damaged else self.previous)
        self.damaged = False

    def load(self) -> TrainState:
        """Puts parameters, optimizer, random generators and metrics.jsonl back to the newest good checkpoint and returns its state.

        A fresh state where there is no checkpoint. Raises UserError when there are some but none is of this run, whole and readable.
        """
        state, problems = TrainState(), []
        for path in (self.newest, self.previous):
            if not path.exists():
                continue
            try:
                state = self.read(path)
            except Unusable as error:
                problems.append(f"{path} {error}")
                continue
            self.damaged = bool(problems)
            say("; ".join([*problems, f"{self.identity['run_id']} goes on from step {state.step} of {self.session.config.steps}"]))
            break
        else:
            if problems:
                raise UserError(f"{'; '.join(problems)}; remove {self.newest.parent} to start the run over")
        if parallel.RANK == 0 and self.metrics.exists():  # later lines come again
            with files.told(self.metrics):
                os.truncate(self.metrics, min(state.logged, self.metrics.stat().st_size))
        return state

    def read(self, path: Path) -> TrainState:
        """One checkpoint, into the session and the optimizer. Raises Unusable before a parameter is changed."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError) as error:
            raise Unusable(f"cannot be read ({first_line(error, 80)})") from error
        if (schema := metadata.get("schema")) != str(SCHEMA):
            raise Unusable(f"is of schema {schema}, not {SCHEMA}: another version of adept, or another program, wrote it")
        text = metadata.get("state", "")
        if metadata.get("crc") != checksum(tensors, text):
            raise Unusable("is damaged: its checksum is wrong")
        stored = parsed(text)
        for name, ours in self.identity.items():
            if stored.get(name) != ours:
                raise Unusable(f"is of another run: its {name} is {stored.get(name)}, not {ours}")
        trainables, best = self.session.trainables, stored["state"]["best"]
        if wrong := kinds(tensors).items() ^ layout(trainables, tensors, bool(best)).items():
            raise Unusable(f"does not fit the model: {min(name for name, _ in wrong)} differs")

        restore_random_state(stored["random"], tensors, self.session.device)
        checkpoint.assign(trainables, under("weights/", tensors))
        restore_optimizer(self.optimizer, trainables, under("optimizer/", tensors))
        state = TrainState(**{name: stored["state"][name] for name in PLAIN})
        state.losses = tensors["losses"].tolist()
        if state.step:
            state.resumed.append({"step": state.step, **stored["code"]})
        if best:
            weights = {name: tensor.to(self.session.device) for name, tensor in under("best/", tensors).items()}
            state.best = {**best, "weights": weights}
        return state

    def remove(self) -> None:
        """For when the record is written."""
        for path in (self.newest, self.previous):
            path.unlink(missing_ok=True)


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def parsed(text: str) -> dict:
    """A checkpoint's JSON: whose it is, "code", "state" and "random". Raises Unusable where it is not what `save` writes."""
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"holds no JSON ({first_line(error, 80)})") from error
    parts = ("code", "state", "random")
    if not isinstance(stored, dict) or not all(isinstance(stored.get(part), dict) for part in parts):
        raise Unusable(f"lacks one of {', '.join(parts)}: another program wrote it")
    for name, fits in PLAIN.items():
        if name not in stored["state"] or not fits(stored["state"][name]):
            raise Unusable(f"holds no '{name}' as this version of adept writes it")
    return stored


def kinds(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def layout(trainables: Mapping[str, Tensor], tensors: Mapping[str, Tensor], best: bool) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """{name: (dtype, shape)} that the tensors of a checkpoint must have. What may differ between two is taken from `tensors`: the number of
    losses, the devices with random generators, and which parameters have had a gradient."""
    expected = {name: kind for name, kind in kinds(tensors).items() if name.startswith("random/")}
    expected["random/cpu"] = kinds({"": torch.get_rng_state()})[""]
    expected["losses"] = (torch.float64, (tensors["losses"].numel() if "losses" in tensors else 0,))
    for name, kind in kinds(trainables).items():
        moments = {f"optimizer/{key}/{name}": (torch.float32, ()) if key == "step" else kind for key in MOMENTS}
        expected |= {f"weights/{name}": kind} | ({f"best/{name}": kind} if best else {})
        expected |= moments if moments.keys() & tensors.keys() else {}
    return expected


def checksum(tensors: dict[str, Tensor], text: str) -> str:
    """CRC-32 of names, values and text: what a disk lost in the middle of a file shows."""
    total = zlib.crc32(text.encode())
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy(), zlib.crc32(name.encode(), total))
    return f"{total:08x}"


def restore_optimizer(optimizer: torch.optim.Optimizer, trainables: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    """tensors: {"<key>/<parameter's name>": value}. The groups and their rates stay: the config and the step decide them."""
    numbers = {id(p): i for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
    state: dict[int, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        key, name = path.split("/", 1)
        state.setdefault(numbers[id(trainables[name])], {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def random_state(device: torch.device) -> tuple[dict, dict[str, Tensor]]:
    """(python's and numpy's generators as JSON, torch's as uint8 tensors)"""
    name, keys, *rest = np.random.get_state()
    tensors = {"random/cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        tensors["random/mps"] = torch.mps.get_rng_state()
    return {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest]}, tensors


def stored_as(name: str, rank: int) -> str:
    """Where the state of a process's generator lies: the first's under its name."""
    return f"{name}/{rank}" if rank else name


def restore_random_state(generators: dict, tensors: dict[str, Tensor], device: torch.device) -> None:
    """A run that goes on elsewhere (CPU to GPU, or in more processes) keeps that device's or process's generator as its seed made it.

    Raises Unusable for what is none.
    """
    own = {kind: tensors[name] for kind in ("cpu", "cuda", "mps") if (name := stored_as(f"random/{kind}", parallel.RANK)) in tensors}
    try:
        version, numbers, normal = generators["python"]
        random.setstate((version, tuple(numbers), normal))
        name, keys, place, *rest = generators["numpy"]
        if not 0 <= place <= 624:
            raise ValueError(f"place {place} is beyond its 624 numbers")  # where numpy would read without looking
        np.random.set_state((name, keys, place, *rest))
        if parallel.RANK == 0 or "cpu" in own:
            torch.set_rng_state(own["cpu"])
        if device.type == "cuda" and "cuda" in own:
            torch.cuda.set_rng_state(own["cuda"], device)
        if device.type == "mps" and "mps" in own:
            torch.mps.set_rng_state(own["mps"])
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise Unusable(f"holds random generators that cannot be restored ({first_line(error, 80)})") from error
