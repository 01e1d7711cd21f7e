"""The record of a run that has been trained and tested."""

from __future__ import annotations

import platform

import torch

from adept.data.dataset import Data
from adept.runs.comparison import what_it_is_made_from
from adept.runs.provenance import PACKAGES, git_state, package_version
from adept.runs.record import SCHEMA
from adept.training.session import Session
from adept.training.state import TrainState


def make_record(session: Session, data: Data, param_groups: dict, state: TrainState, test: dict, timing: dict) -> dict:
    """The record of a finished run (adept/runs/record.py). "notes" says where the data differ from the paper's.

    param_groups: {regex: {"lr", "params"}}; test: {metric: percent}; timing: {name: seconds or a rate}.
    """
    config, task = session.config, session.task
    trained, total = session.param_counts
    notes = []
    if task.sizes and config.few_shot is None and tuple(data.sizes.values()) != task.sizes:
        notes.append(
            f"sizes {'/'.join(map(str, data.sizes.values()))} differ from the paper's {'/'.join(map(str, task.sizes))}"
        )
    return {
        "schema": SCHEMA,
        "run_id": config.run_id,
        "status": "completed",
        "config": config.flat(),
        "trainable_params": trained,
        "total_params": total,
        "param_groups": param_groups,
        "history": state.history,
        "best_step": state.best["step"],
        "validation": state.best["validation"],
        "test": test,
        "sizes": data.sizes,
        "truncation": data.truncation.record(),
        "notes": notes,
        "timing": {name: round(value, 3) for name, value in timing.items()},
        "provenance": {
            **git_state(),
            "python": platform.python_version(),
            "packages": {name: version for name in PACKAGES if (version := package_version(name))},
            "device": describe_device(session.device),
            "model_revision": getattr(session.model.config, "_commit_hash", None),
            **what_it_is_made_from(config),
            "data_origin": data.origin,
            "data_files": dict(data.files),
            "data_fingerprint": data.fingerprint,
            "protocol": config.protocol,
        },
    }


def describe_device(device: torch.device) -> str:
    """The GPU's name, or the CPU with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
