"""A run's training state and its resumable checkpoints: a killed run goes on as if nothing had happened.

A checkpoint is one safetensors file, `<run folder>/checkpoint.safetensors`; the one before it is kept as
`checkpoint.previous.safetensors`. Its tensors are the trained parameters, the best ones so far, AdamW's moments, the losses since the last
evaluation and torch's random generators. Its metadata hold "schema", "crc" (of everything else) and "state", a JSON object with whose
run it is and the rest of the state. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import random
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

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


PLAIN = ("step", "history", "shown", "train_seconds", "eval_seconds", "examples", "tokens", "logged", "resumed", "stacked")
"""TrainState's fields that are JSON as they are. The losses become a tensor, the best weights too; nothing is unread in a checkpoint."""


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
        plain = {name: getattr(state, name) for name in PLAIN}
        plain["best"] = {name: value for name, value in state.best.items() if name != "weights"}
        tensors = {place(name, rank): state for rank, states in enumerate(everyones) for name, state in states.items()}
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
        files.write_atomically(self.newest, content, previous=self.previous)

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
        """One checkpoint, into the session and the optimizer. Raises Unusable before anything is changed."""
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
        stored = json.loads(text)
        for name, ours in self.identity.items():
            if stored[name] != ours:
                raise Unusable(f"is of another run: its {name} is {stored[name]}, not {ours}")
        trainables = self.session.trainables
        if wrong := shapes(under("weights/", tensors)).items() ^ shapes(trainables).items():
            raise Unusable(f"does not fit the model: {min(name for name, _ in wrong)} differs")

        checkpoint.assign(trainables, under("weights/", tensors))
        restore_optimizer(self.optimizer, trainables, under("optimizer/", tensors))
        restore_random_state(stored["random"], tensors, self.session.device)
        state = TrainState(**{name: stored["state"][name] for name in PLAIN})
        state.losses = tensors["losses"].tolist()
        if state.step:
            state.resumed.append({"step": state.step, **stored["code"]})
        if best := stored["state"]["best"]:
            weights = {name: tensor.to(self.session.device) for name, tensor in under("best/", tensors).items()}
            state.best = {**best, "weights": weights}
        return state

    def remove(self) -> None:
        """For when the record is written."""
        for path in (self.newest, self.previous):
            path.unlink(missing_ok=True)


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


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


def place(name: str, rank: int) -> str:
    """Where the state of a process's generator lies: the first's under its name."""
    return f"{name}/{rank}" if rank else name


def restore_random_state(generators: dict, tensors: dict[str, Tensor], device: torch.device) -> None:
    """A run that goes on elsewhere (CPU to GPU, or in more processes) keeps that device's or process's generator as its seed made it."""
    version, numbers, normal = generators["python"]
    random.setstate((version, tuple(numbers), normal))
    np.random.set_state(tuple(generators["numpy"]))
    own = {name: tensors[stored] for name in ("cpu", "cuda", "mps") if (stored := place(f"random/{name}", parallel.RANK)) in tensors}
    if "cpu" in own:
        torch.set_rng_state(own["cpu"])
    if device.type == "cuda" and "cuda" in own:
        torch.cuda.set_rng_state(own["cuda"], device)
    if device.type == "mps" and "mps" in own:
        torch.mps.set_rng_state(own["mps"])
