"""Adapters: trained parameters as safetensors, and the configuration of their run beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from adept.base.atomic_files import write_atomically
from adept.base.errors import UserError, first_line
from adept.config.run import RunConfig
from adept.runs.peft_files import PEFT_WEIGHTS, our_names, require_same_scales, say_other_base

WEIGHTS, DESCRIPTION, TASK_FILE = "adapter.safetensors", "adapter.json", "task.yaml"
PROMPT = "prompt.safetensors"
"""Beside the weights of a run whose prompt is made of other parameters: {"prompt": [m, D]}, what they come to."""


def snapshot(trainables: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """A copy of the trained parameters that later steps do not touch."""
    return {name: parameter.detach().clone() for name, parameter in trainables.items()}


@torch.no_grad()
def assign_weights(trainables: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    """Copies `weights` into the parameters of the same names. Raises KeyError if the names differ."""
    if missing := trainables.keys() ^ weights.keys():
        raise KeyError(f"parameters {sorted(missing)} are on one side only")
    for name, parameter in trainables.items():
        parameter.copy_(weights[name])


class AdapterDescription(BaseModel):
    """What adapter.json must hold. Method, base model and shapes are there for human readers."""

    config: dict[str, Any]
    base_weights: str | None = None
    """weights_digest() of the base model (adept/models/loading.py); adapters of earlier versions do not have it."""


def save_adapter(
    folder: Path,
    trainables: Mapping[str, nn.Parameter],
    config: RunConfig,
    base_weights: str | None,
    made_prompt: Tensor | None = None,
) -> None:
    """Writes adapter.safetensors, adapter.json (method, shapes, base model, the whole config) and the task's file.

    made_prompt [m, D]: the prompt that the parameters make, which a plain prompt can start from.
    """
    weights = {name: tensor.cpu().contiguous() for name, tensor in snapshot(trainables).items()}
    write_atomically(folder / WEIGHTS, safetensors.torch.save(weights))
    if made_prompt is not None:
        write_atomically(folder / PROMPT, safetensors.torch.save({"prompt": made_prompt.cpu().contiguous()}))
    description = {
        "method": config.method,
        "base_model": config.model,
        "base_weights": base_weights,
        "shapes": {name: list(tensor.shape) for name, tensor in weights.items()},
        "config": config.flat(),
    }
    if config.task_file is not None:  # whoever has the adapter can render rows for it
        write_atomically(folder / TASK_FILE, Path(config.task_file).read_bytes())
    write_atomically(folder / DESCRIPTION, json.dumps(description, indent=1) + "\n")


def read_description(folder: Path) -> AdapterDescription:
    """What adapter.json says of the run that trained the adapter.

    Raises OSError, ValueError or RecursionError where that cannot be read.
    """
    return AdapterDescription.model_validate(json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")))


def description_in(folder: Path) -> AdapterDescription:
    """read_description(), which raises UserError where that cannot be read."""
    try:
        return read_description(folder)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder / DESCRIPTION} cannot be read: {first_line(error, 100)}") from error


def require_same_base(folder: Path, model: str, base_weights: str | None) -> None:
    """Raises UserError where an adapter was trained on another base model than `model`, whose digest is base_weights.

    An adapter that does not tell its base's digest is taken to fit.
    """
    if not (folder / DESCRIPTION).is_file():  # of PEFT, or as DePT's authors released them
        say_other_base(folder, model)
        return
    trained_on = description_in(folder)
    if None not in (trained_on.base_weights, base_weights) and trained_on.base_weights != base_weights:
        raise UserError(
            f"the adapter in {folder} was trained on the base model {trained_on.config.get('model')}, "
            f"whose weights are not those of {model}: --model must name the base that it was trained on"
        )


def require_same_seed(folder: Path, config: RunConfig) -> None:
    """Raises UserError where the seed of the run that trained the adapter drew other untrained parts than this run's.

    A run that takes nothing but the finished prompt has no such parts.
    """
    if not config.method_options.draws_untrained:
        return
    if (trained_with := description_in(folder).config.get("seed")) != config.seed:
        raise UserError(
            f"the adapter in {folder} fits what --seed {trained_with} draws beside it, which method "
            f"'{config.method}' does not train: --seed must be {trained_with}, not {config.seed}"
        )


def find_adapter(name: str, results_dir: str) -> Path:
    """The adapter folder of a run id under results_dir, or a folder path. Raises UserError when neither is there."""
    candidates = [Path(name)]
    if Path(name).name == name:  # a run id, not a path, which could lead out of results_dir
        candidates.append(Path(results_dir) / "runs" / name)
    for folder in candidates:
        if weights_file(folder) is not None:
            return folder
    for folder in candidates:
        if os.path.isfile(folder / "checkpoint.safetensors"):
            raise UserError(
                f"no adapter in {folder}: its run is not finished; "
                f"the command that began it goes on, and leaves {WEIGHTS} there"
            )
    raise UserError(f"no adapter '{name}': looked for {WEIGHTS} in {' and '.join(map(str, candidates))}")


def weights_file(folder: Path) -> Path | None:
    """The file of an adapter's tensors: ours, PEFT's, or DePT's authors'; None where none is there."""
    files = (folder / name for name in (WEIGHTS, PEFT_WEIGHTS, "adapter_model.bin"))
    return next((path for path in files if os.path.isfile(path)), None)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Tensors by name, as the adapter's file has them.

    No code is unpickled. Raises UserError for a damaged or foreign file.
    """
    try:
        path = weights_file(folder)
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make torch.load raise nearly anything
        raise UserError(f"{folder} holds no readable adapter: {first_line(error, 120)}") from error
    named = isinstance(weights, dict) and all(isinstance(name, str) for name in weights)
    if not named or not all(map(is_plain_tensor, weights.values())):
        raise UserError(
            f"{folder} holds no readable adapter: adapter_model.bin should hold {{name: tensor}} and nothing else"
        )
    return weights


def is_plain_tensor(value: object) -> bool:
    """Whether it is a dense tensor in memory, as an adapter's are."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and not value.is_quantized
        and value.device.type == "cpu"
    )


def finished_prompt(folder: Path, weights: Mapping[str, Tensor]) -> Tensor | None:
    """[m, D]: the prompt that is all that an adapter's run has trained; None where it has trained more.

    weights: the adapter's. Raises UserError for a damaged file.
    """
    if (folder / PROMPT).is_file():
        try:
            return safetensors.torch.load_file(folder / PROMPT)["prompt"]
        except Exception as error:
            raise UserError(f"{folder / PROMPT} holds no readable prompt: {first_line(error, 120)}") from error
    names = [*weights]
    return weights[names[0]] if len(names) == 1 and is_prompt(names[0]) else None


def is_prompt(name: str) -> bool:
    """Whether a parameter of that name is a prompt's table."""
    return name.endswith(".prompt")


Adopt = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
"""Method.adopt() (adept/methods/method.py)."""


def restore_adapter(model: nn.Module, folder: Path, adopt: Adopt | None = None) -> None:
    """Fills the model's trained parameters from an adapter folder. require_same_base() says whether it may.

    A model that trains the table of a prompt and nothing else also takes the finished prompt of another method.
    adopt: makes the parameters of this run out of another's.
    Raises UserError when a tensor is left over, missing, of another shape or not finite, naming it.
    """
    trainables = {name: p for name, p in model.named_parameters() if p.requires_grad}
    require_same_scales(model, folder)
    weights = our_names(read_weights(folder), trainables)
    takes_prompt = len(trainables) == 1 and all(map(is_prompt, trainables)) and weights.keys() != trainables.keys()
    if takes_prompt and (prompt := finished_prompt(folder, weights)) is not None:
        weights = dict.fromkeys(trainables, prompt)
    weights = weights if adopt is None else adopt(weights)
    for name in sorted(trainables.keys() ^ weights.keys()):
        side = "lacks" if name in trainables else "has, but this method and model lack,"
        raise UserError(f"the adapter in {folder} does not fit: it {side} {name}")
    for name, parameter in trainables.items():
        stored = weights[name]
        if stored.shape != parameter.shape:
            raise UserError(
                f"the adapter in {folder} does not fit: {name} is {list(stored.shape)}, "
                f"this run needs {list(parameter.shape)}"
            )
        if not stored.is_floating_point():
            raise UserError(
                f"the adapter in {folder} does not fit: {name} holds {stored.dtype}, "
                "this run needs floating-point numbers"
            )
        if not stored.float().isfinite().all():
            raise UserError(f"the adapter in {folder} is damaged: {name} holds values that are not finite")
    assign_weights(trainables, weights)
