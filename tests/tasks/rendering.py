"""Rows of the fixtures as examples, and as ids of an encoder-decoder model."""

import dataclasses

import torch

from adept.config.layers import resolve
from adept.config.run import RunConfig, task_of
from adept.data.codec import Codec
from adept.data.dataset import render_rows
from adept.data.example import Example
from adept.models.tiny import fixture_rows
from adept.tasks import TASKS
from adept.tasks.task import Task


def config_of(name: str, **flags) -> RunConfig:
    """The configuration of a run of the task, with permission to run code where it needs that."""
    return resolve({"task": name, **flags, **({"allow_code_execution": True} if TASKS[name].runs_code else {})})


def rendered(name: str, rows: list[dict] | None = None, **flags) -> list[Example]:
    """The examples of a task's fixture rows, or of `rows`, under --flags."""
    config = config_of(name, **flags)
    made = render_rows(task_of(config), "train", rows or fixture_rows(name), "fixture")
    return [example for examples in made for example in examples]


def permutation_by_seed_42(count: int) -> list[int]:
    """The order in which the released code draws rows."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(42)).tolist()


FREE_TEXT_LEN = 20
"""--max_target_len of free text."""


def encoder_decoder_codec(tokenizer, task: Task, config: RunConfig, **fields) -> Codec:
    """The Codec of an encoder-decoder model's run."""
    common = {
        "encoder_decoder": True,
        "prompt_ids": (),
        "max_source_len": config.max_source_len,
        "max_target_len": FREE_TEXT_LEN,
    }
    cut_references = bool(config.get("cut_references"))
    made = Codec(tokenizer, **{**common, "cue": task.cue, "cut_references": cut_references, **fields})
    if labels := task.labels:
        made = dataclasses.replace(made, max_target_len=max(len(made.target_ids(label)) for label in labels))
    return made
