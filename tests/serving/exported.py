"""Adapters with random weights on tiny models, their exports, and what another process reads from these."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny_families
import torch
import transformers

from adept.config.layers import resolve
from adept.data.example import Example
from adept.models.families import TINY
from adept.models.loading import locate
from adept.models.tiny import make_tokenizer
from adept.runs.adapter import save_adapter
from adept.serving.export import export
from adept.training.evaluation import max_new_tokens
from adept.training.session import Session, open_session

SIZES = {"adept": {"prompt_len": 5, "bottleneck": 3}, "pt": {"prompt_len": 5}, "pt_table": {"prompt_len": 5},
         "dept": {"prompt_len": 5, "rank": 3, "offset_len": 40}, "dept_relu": {"prompt_len": 5, "rank": 3},
         "lora": {"rank": 2}, "full": {}, "zero_shot": {}}  # fmt: skip

TEXTS = [
    "sentence1: A cat sat. sentence2: An animal sat.",
    "sentence1: The ferry leaves at noon, and it takes an hour to the island. sentence2: It takes an hour.",
    "x",
    "sentence1: " + "very " * 80,
]
"""Of several lengths; the last is cut."""


def model_folder(name: str, folder: Path, tokenizer: Any = None, **changes) -> str:
    """The name of a tiny model as --model takes it: one of TINY, or a family of tiny_families, made in `folder`."""
    if name in TINY:
        return name
    path = folder / "-".join([name, *map(str, changes)])
    if not path.exists():
        model = tiny_families.build(name, **changes)
        model.save_pretrained(path)
        if tokenizer is None:
            make_tokenizer(path, appends_eos=model.config.is_encoder_decoder)
        else:
            tokenizer.save_pretrained(path)
    return str(path)


def random_adapter(folder: Path, model: str, method: str, **fields) -> Path:
    """The folder of an adapter whose weights are drawn, and large enough to change every answer."""
    values = {"task": "rte", "model": model, "method": method, "data_dir": "fixtures", "device": "cpu"}
    config = resolve({**values, "max_source_len": 64, "max_new_tokens": 6, **SIZES[method], **fields})
    session = open_session(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in session.trainables.values():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    save_adapter(folder, session.trainables, config, session.base_weights)
    return folder


@dataclass
class Expected:
    """What the session makes of TEXTS."""

    ids: list[list[int]]
    logits: torch.Tensor
    answers: list[str]


@torch.no_grad()
def of_session(session: Session) -> Expected:
    """By generate() of the session's own model, batches as wide as the longest row."""
    codec = dataclasses.replace(session.codec, multiple=1)
    examples = codec.encode([Example("", text, "", ()) for text in TEXTS])
    batch = codec.source_batch(examples)
    settings = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens(session), output_logits=True, return_dict_in_generate=True
    )
    output = session.model.generate(**batch, generation_config=settings)
    start = batch["input_ids"].shape[1] if codec.padding_side == "left" else 0
    answers = codec.tokenizer.batch_decode(output.sequences[:, start:], skip_special_tokens=True)
    ids = [[*codec.prompt_ids, *example.source_ids] for example in examples]
    return Expected(ids, output.logits[0], [answer.strip() for answer in answers])


def read_elsewhere(cases: list[dict], libraries: str | None = None) -> tuple[str, list[dict]]:
    """(transformers' version, what read_folders.py finds), in a process that cannot import this project."""
    script = Path(__file__).with_name("read_folders.py")
    request = json.dumps({"libraries": libraries, "cases": cases})
    done = subprocess.run(
        [sys.executable, "-I", str(script)], input=request, capture_output=True, text=True, cwd=script.anchor
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout)
    return answer["version"], answer["found"]


def reading(folder: Path, session: Session, form: str, rows: int | None = None) -> dict:
    """A case of read_folders.py. rows: those that the base model is resized to."""
    causal = session.capabilities.continues_source
    return {
        "folder": str(folder),
        "base": None if form == "plain" else locate(session.config.model),
        "rows": rows,
        "causal": causal,
        "texts": TEXTS,
        "alone": causal and form == "prompt_tuning",
    }


__all__ = ["TEXTS", "Expected", "export", "model_folder", "of_session", "random_adapter", "read_elsewhere", "reading"]
