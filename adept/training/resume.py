"""A run's resumable checkpoints: a killed run goes on as if nothing had happened.

A checkpoint is one safetensors file, `<run folder>/checkpoint.safetensors`; the one before it is kept as
`checkpoint.previous.safetensors`. Its tensors are the trained parameters, the best ones so far, AdamW's moments, the
losses since the last evaluation and torch's random generators. Its metadata hold "schema", "crc" (of everything else)
and "state", a JSON object with whose run it is and the rest of the state. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from adept.base import distributed
from adept.base.atomic_files import report_disk_errors, write_atomically
from adept.base.console import print_status
from adept.base.errors import UserError, first_line
from adept.runs.adapter import assign_weights
from adept.runs.comparison import changed_options
from adept.runs.provenance import git_state
from adept.training.random_state import generator_name, random_state, restore_random_state
from adept.training.session import Session
from adept.training.state import StoredState, StoredText, TrainState

SCHEMA = 2
SAVE_SECONDS = 600.0
"""A checkpoint is written at least this often, so that a slow machine loses no more."""

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of a parameter: how many gradients it had, and their running means."""


class CheckpointError(Exception):
    """A file is no checkpoint of this run. Its text says why and follows the file's path."""


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
        self.damaged = False  # whether `newest` is damaged, so that `previous` must not be overwritten with it

    def due(self, state: TrainState) -> bool:
        """Whether --save_every or the clock asks for a checkpoint now."""
        every = self.session.config.save_every
        if not every or not state.step:
            return False
        return state.step % every == 0 or time.monotonic() - self.saved > SAVE_SECONDS

    def save(self, state: TrainState) -> None:
        """Writes a checkpoint and keeps the one before it. Before the first step it does nothing.

        Raises UserError when the disk refuses.
        """
        if not state.step:
            return
        generators, own = random_state(self.session.device)
        of_all = distributed.gather_objects(lambda: own)
        distributed.on_main_process(lambda: self.write(state, generators, of_all))
        self.saved = time.monotonic()

    def write(self, state: TrainState, generators: dict, torch_generators: list[dict[str, Tensor]]) -> None:
        """Writes the file. generators, torch_generators: random_state(), the latter of each process."""
        if self.metrics.exists():
            with report_disk_errors(self.metrics), self.metrics.open("rb+") as file:
                os.fsync(file.fileno())
                state.logged = file.seek(0, os.SEEK_END)
        best = {name: value for name, value in state.best.items() if name != "weights"}
        fields = {name: getattr(state, name) for name in StoredState.model_fields} | {"best": best}
        tensors = {
            generator_name(name, rank): value
            for rank, values in enumerate(torch_generators)
            for name, value in values.items()
        }
        tensors["losses"] = torch.tensor(state.losses, dtype=torch.float64)
        for name, parameter in self.session.trainables.items():
            tensors[f"weights/{name}"] = parameter.detach()
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer/{key}/{name}"] = value
        for name, weights in state.best.get("weights", {}).items():
            tensors[f"best/{name}"] = weights
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        config = self.session.config.flat()
        text = json.dumps(
            {**self.identity, "config": config, "code": git_state(), "state": fields, "random": generators}
        )
        content = save(tensors, {"schema": str(SCHEMA), "crc": checksum(tensors, text), "state": text})
        write_atomically(self.newest, content, previous=None if self.damaged else self.previous)
        self.damaged = False

    def load(self) -> TrainState:
        """Restores parameters, optimizer, random generators and metrics.jsonl from the newest good checkpoint.

        Returns its state, or a fresh one where there is no checkpoint. Raises UserError where there are checkpoints,
        but none that is complete, readable and of this run.
        """
        state, problems = TrainState(), []
        for path in (self.newest, self.previous):
            if not path.exists():
                continue
            try:
                state = self.read(path)
            except CheckpointError as error:
                problems.append(f"{path} {error}")
                continue
            self.damaged = bool(problems)
            line = f"{self.identity['run_id']} goes on from step {state.step} of {self.session.config.steps}"
            print_status("; ".join([*problems, line]))
            break
        else:
            if problems:
                raise UserError(f"{'; '.join(problems)}; remove {self.newest.parent} to start the run over")
        if distributed.RANK == 0 and self.metrics.exists():  # later lines will be written again
            with report_disk_errors(self.metrics):
                os.truncate(self.metrics, min(state.logged, self.metrics.stat().st_size))
        return state

    def read(self, path: Path) -> TrainState:
        """Loads a checkpoint into session and optimizer. Raises CheckpointError before a parameter is changed."""
        try:
            # Copies, because what safe_open() gives lies in the file, which is removed when the record is written.
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"cannot be read ({first_line(error, 80)})") from error
        if (schema := metadata.get("schema")) != str(SCHEMA):
            raise CheckpointError(
                f"is of schema {schema}, not {SCHEMA}: another version of adept, or another program, wrote it"
            )
        text = metadata.get("state", "")
        if metadata.get("crc") != checksum(tensors, text):
            raise CheckpointError("is damaged: its checksum is wrong")
        stored = parse_text(text)
        for name, ours in self.identity.items():
            if stored.get(name) != ours:
                raise CheckpointError(f"is of another run: its {name} is {stored.get(name)}, not {ours}")
        for change in changed_options(self.session.config, stored.get("config", {})):
            raise CheckpointError(f"is of another run: {change}")
        trainables, best = self.session.trainables, stored["state"]["best"]
        if wrong := tensor_specs(tensors).items() ^ expected_specs(trainables, tensors, bool(best)).items():
            raise CheckpointError(f"does not fit the model: {min(name for name, _ in wrong)} differs")

        try:
            restore_random_state(stored["random"], tensors, self.session.device)
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        assign_weights(trainables, with_prefix("weights/", tensors))
        restore_optimizer(self.optimizer, trainables, with_prefix("optimizer/", tensors))
        state = TrainState(**{name: stored["state"][name] for name in StoredState.model_fields})
        state.losses = tensors["losses"].tolist()
        if state.step:
            state.resumed.append({"step": state.step, **stored["code"]})
        if best:
            weights = {name: tensor.to(self.session.device) for name, tensor in with_prefix("best/", tensors).items()}
            state.best = {**best, "weights": weights}
        return state

    def remove(self) -> None:
        """Removes the checkpoints. To be called when the record is written."""
        for path in (self.newest, self.previous):
            path.unlink(missing_ok=True)


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def parse_text(text: str) -> dict:
    """A checkpoint's JSON: the run's identity, "code", "state" and "random".

    Raises CheckpointError where it is not what Checkpoints.write() writes.
    """
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"holds no JSON ({first_line(error, 80)})") from error
    try:
        StoredText.model_validate(stored)
    except ValidationError as error:
        place = error.errors()[0]["loc"]
        if len(place) < 2:
            raise CheckpointError(
                f"lacks one of {', '.join(StoredText.model_fields)}: another program wrote it"
            ) from error
        raise CheckpointError(f"holds no '{place[1]}' as this version of adept writes it") from error
    return stored


def tensor_specs(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """{name: (dtype, shape)}"""
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def expected_specs(
    trainables: Mapping[str, Tensor], tensors: Mapping[str, Tensor], best: bool
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """{name: (dtype, shape)} that the tensors of a checkpoint must have.

    What may differ between checkpoints is taken from `tensors`: the number of losses, the devices with random
    generators, and which parameters have had a gradient. best: whether there are best weights.
    """
    expected = {name: spec for name, spec in tensor_specs(tensors).items() if name.startswith("random/")}
    expected["random/cpu"] = tensor_specs({"": torch.get_rng_state()})[""]
    expected["losses"] = (torch.float64, (tensors["losses"].numel() if "losses" in tensors else 0,))
    for name, spec in tensor_specs(trainables).items():
        moments = {f"optimizer/{key}/{name}": (torch.float32, ()) if key == "step" else spec for key in MOMENTS}
        expected |= {f"weights/{name}": spec} | ({f"best/{name}": spec} if best else {})
        expected |= moments if moments.keys() & tensors.keys() else {}
    return expected


def checksum(tensors: dict[str, Tensor], text: str) -> str:
    """CRC-32 of names, values and text. It shows damage in the middle of a file."""
    total = zlib.crc32(text.encode())
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy(), zlib.crc32(name.encode(), total))
    return f"{total:08x}"


def restore_optimizer(
    optimizer: torch.optim.Optimizer, trainables: dict[str, Tensor], tensors: dict[str, Tensor]
) -> None:
    """Puts AdamW's moments back. tensors: {"<key>/<parameter's name>": value}.

    Groups and rates stay as they are: the config and the step decide them.
    """
    numbers = {id(p): i for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
    state: dict[int, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        key, name = path.split("/", 1)
        state.setdefault(numbers[id(trainables[name])], {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
