"""Adapters of the PEFT library, loaded to predict."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from adept.base.errors import UserError, first_line
from adept.config.layers import resolve
from adept.config.run import RunConfig
from adept.models.families import input_embedding_owner
from adept.runs.adapter import read_weights
from adept.runs.peft_files import read_peft
from adept.training.session import Session, open_session


def foreign_config(folder: Path, given: Mapping[str, Any]) -> RunConfig:
    """The configuration for an adapter that no run of this project has trained.

    given: the task, and other options. Method and sizes come from adapter_config.json, the base model too unless it is
    given. Raises UserError where the task is not given.
    """
    described = read_peft(folder)
    fixed = described.method_options()
    if given.get("task") is None and given.get("task_file") is None:
        raise UserError(
            f"the adapter in {folder} does not say what its task is: load({str(folder)!r}, task=...) or task_file=..."
        )
    base = {} if described.base_model_name_or_path is None else {"model": described.base_model_name_or_path}
    if "model" not in {**base, **given}:
        raise UserError(f"the adapter in {folder} does not say what its base model is: load(..., model=...)")
    return resolve({**base, **fixed, **given})


def open_foreign(folder: Path, config: RunConfig) -> Session:
    """A session with a LoRA of PEFT's, whatever modules it adapts, in place.

    Raises UserError for one that does not fit, and for one that adapts the input embedding: which tokens its tokenizer
    puts in front of a text is not known here.
    """
    bare = resolve({**shared_options(config), "method": "zero_shot"})
    session = open_session(bare)
    session.config = config
    session.model = with_lora(session.model, folder, session)
    return session


def shared_options(config: RunConfig) -> dict[str, Any]:
    """The options of a run that do not belong to its method or to its training."""
    own = {**config.flat()}
    for name in (*type(config.method_options).own_options(), "steps", "epochs", "warmup_steps"):
        own.pop(name, None)
    return own


def with_lora(model: nn.Module, folder: Path, session: Session) -> nn.Module:
    """The model with the folder's LoRA. Raises UserError for tensors that are left over, missing or not finite."""
    import peft

    weights = read_weights(folder)
    for name, tensor in weights.items():
        if not tensor.float().isfinite().all():
            raise UserError(f"the adapter in {folder} is damaged: {name} holds values that are not finite")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            settings = peft.PeftConfig.from_pretrained(str(folder))
            settings.inference_mode, settings.task_type = True, None
            adapted = peft.PeftModel(model, settings)
            found = peft.set_peft_model_state_dict(adapted, weights)
    except Exception as error:  # PEFT raises many kinds for files that do not fit the model
        raise UserError(f"the adapter in {folder} does not fit {session.config.model}: {first_line(error)}") from error
    embedding = input_embedding_owner(adapted.get_base_model()).get_input_embeddings()
    if hasattr(embedding, "lora_embedding_A"):
        raise UserError(
            f"the adapter in {folder} adapts the input embedding, where a prompt may stand that only its own tokenizer "
            "puts in front of a text: load the run that it was exported from"
        )
    missing = [name for name in found.missing_keys if ".lora_" in name]
    if wrong := [*found.unexpected_keys, *missing]:
        side = "lacks" if missing else "has, but this model lacks,"
        raise UserError(f"the adapter in {folder} does not fit: it {side} {wrong[-1]}")
    return adapted.to(session.device)
