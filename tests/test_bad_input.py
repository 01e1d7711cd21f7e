"""Bad input of every kind, through the commands as a user gives them.

Each ends with exit code 2 and one line that names the thing and the remedy, and nothing is written. Task files and
their data have a hundred more: tests/tasks/test_custom_bad_files.py and test_custom_data.py.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file, save_file

import train
from adept.base.errors import UserError
from adept.commands.main import main
from adept.config.layers import resolve
from adept.models.tiny import fixture_rows
from adept.serving.load import load

TRAIN = "--model t5 --data_dir data --results_dir results --device cpu --steps 2 --batch_size 4 --max_source_len 64"
TINY = "--task rte --prompt_len 5 --bottleneck 3"
"""The shape of the adapter that lies in trained (tests/conftest.py)."""


@dataclass(frozen=True)
class Case:
    """command: a program (train, sweep, report, or load for the API's load) and its words; TRAIN comes before train's.

    named: what the line must hold. files and make(world) lay out the current folder, where t5, llama, codegen, data and
    trained lie.
    """

    command: str
    named: tuple[str, ...]
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    make: Callable[[], object] | None = None


def call(command: str) -> int:
    """Exit code of a command."""
    program, *words = shlex.split(command)
    match program:
        case "train":
            return train.main([*TRAIN.split(), *words])
        case "sweep" | "report":
            return main([program, *words, "--results_dir", "results"])
        case "load":
            try:
                load(*words, results_dir="results")
            except UserError as error:
                print(f"error: {error}", file=sys.stderr)
                return 2
            return 0


# What lies in the folder ----------------------------------------------------------------------------------------------


class Touch:
    """Unpickled by code that trusts its files, this leaves a file named "executed"."""

    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def adapter(weights: Callable[[dict], object] = dict, **fields) -> Callable[[], None]:
    """Makes `adapter`, a copy of the trained one, with its weights changed in place and `fields` of its config changed
    (None: left out).
    """

    def make() -> None:
        shutil.copytree("trained", "adapter")
        tensors = load_file("adapter/adapter.safetensors")
        weights(tensors)
        save_file(tensors, "adapter/adapter.safetensors")
        description = json.loads(Path("adapter/adapter.json").read_text())
        description["config"] = {
            name: value for name, value in {**description["config"], **fields}.items() if value is not GONE
        }
        Path("adapter/adapter.json").write_text(json.dumps(description))

    return make


def adapter_file(name: str, content: bytes | Callable[[bytes], bytes]) -> Callable[[], None]:
    """Makes `adapter`, a copy of the trained one, with other bytes in one of its files."""

    def make() -> None:
        adapter()()
        path = Path("adapter", name)
        path.write_bytes(content if isinstance(content, bytes) else content(path.read_bytes()))

    return make


def foreign(content: object) -> Callable[[], None]:
    """Makes `adapter` with an adapter_model.bin, as DePT's authors release theirs, in place of safetensors."""

    def make() -> None:
        adapter()()
        Path("adapter/adapter.safetensors").unlink()
        torch.save(content, "adapter/adapter_model.bin")

    return make


def model(name: str, content: str | bytes | Callable[[bytes], bytes]) -> Callable[[], None]:
    """Makes `model`, a copy of the tiny T5, with other content in one of its files."""

    def make() -> None:
        shutil.copytree("t5", "model")
        path = Path("model", name)
        content_now = content(path.read_bytes()) if callable(content) else content
        path.write_bytes(content_now if isinstance(content_now, bytes) else content_now.encode())

    return make


def pickled_model() -> None:
    shutil.copytree("t5", "model")
    Path("model/model.safetensors").unlink()
    torch.save({"shared.weight": Touch()}, "model/pytorch_model.bin")


def own_code(content: bytes) -> bytes:
    """A config.json that wants the folder's code run. "foreign" is no type that transformers knows, so nothing else
    could load it.
    """
    Path("model/foreign.py").write_text("from pathlib import Path\nPath('executed').touch()\n")
    classes = {
        "AutoConfig": "foreign.Config",
        "AutoModelForSeq2SeqLM": "foreign.Model",
        "AutoModelForCausalLM": "foreign.Model",
    }
    return json.dumps({**json.loads(content), "model_type": "foreign", "auto_map": classes}).encode()


def long_tokenizer(content: bytes) -> bytes:
    """More tokens than the tiny T5 has rows, and one of them stands in every source."""
    tokenizer = json.loads(content)
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary.update({f"more{i}": len(vocabulary) + i for i in range(20)})
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    tokenizer["added_tokens"].append({"id": len(vocabulary), "content": "sentence1", **flags})
    return json.dumps(tokenizer).encode()


def rows(*changed: dict, task: str = "rte", split: str = "train") -> dict[str, str]:
    """{path: content} of a data folder `mine`: the fixture's rows, and behind them the first one with each of the
    changes.
    """
    first, *others = fixture_rows(task)
    lines = [first, *others, *({k: v for k, v in {**first, **change}.items() if v is not GONE} for change in changed)]
    return {f"mine/{task}/{split}.jsonl": "".join(json.dumps(row) + "\n" for row in lines)}


def parquet(table: dict, cut: int | None = None) -> Callable[[], None]:
    """Makes mine/rte/train.parquet of these columns, or only its first bytes."""

    def make() -> None:
        path = Path("mine/rte/train.parquet")
        path.parent.mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.table(table), path)
        path.write_bytes(path.read_bytes()[:cut])

    return make


def record(**parts) -> Callable[[], None]:
    """Writes the record of table.yaml's run with these parts changed."""
    config = resolve({"task": "rte", "method": "pt", "model": "t5", "prompt_len": 9, "results_dir": "results"})
    good = {
        "schema": 1,
        "run_id": config.run_id,
        "status": "completed",
        "config": {"task": "rte", "steps": 2},
        "trainable_params": 288,
        "history": [{"step": 2, "validation": {"accuracy": 50.0}}],
        "best_step": 2,
        "validation": {"accuracy": 50.0},
        "test": {"accuracy": 50.0},
        "notes": [],
    }
    content = json.dumps({name: value for name, value in {**good, **parts}.items() if value is not GONE})
    return record_file(content.encode())


def record_file(content: bytes | None) -> Callable[[], None]:
    """Writes bytes where the record of table.yaml's run lies; None: a folder of that name."""

    def make() -> None:
        config = resolve({"task": "rte", "method": "pt", "model": "t5", "prompt_len": 9, "results_dir": "results"})
        path = Path("results/runs", f"{config.run_id}.json")
        path.parent.mkdir(parents=True)
        path.mkdir() if content is None else path.write_bytes(content)

    return make


GONE = object()
"""In place of a value: the key is left out."""

TABLE = {"table.yaml": "title: One run\nfields: {task: rte, model: t5}\ngrid: [{method: pt, prompt_len: 9}]\n"}

LAUGHS = "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 40))
"""Nine aliases of nine aliases ...: a hundred lines that stand for 9 ** 39 values."""

HUNDREDS = ", ".join(f"{key}: {list(range(100))}" for key in ("seed", "steps", "rank", "eval_rows"))
"""Four axes of a hundred values: a hundred million runs."""

NAN = float("nan")
TASK_FILE = (
    "name: jokes\nfiles: {train: t.csv, validation: t.csv, test: t.csv}\n"
    "text: [body]\nlabel: funny\nlabels: [dull, funny]\n"
)


def config_file(content: str | bytes, *named: str) -> Case:
    return Case("train --task rte --config mine.yaml", ("mine.yaml", *named), {"mine.yaml": content})


def data(files: Mapping[str, str | bytes], *named: str, task: str = "rte") -> Case:
    return Case(f"train --task {task} --data_dir mine", named, files)


def restored(*named: str, make: Callable[[], None]) -> Case:
    return Case(f"train {TINY} --init_from adapter", ("adapter", *named), make=make)


def loaded(*named: str, make: Callable[[], None]) -> Case:
    return Case("load adapter", ("adapter", *named), make=make)


def modelled(*named: str, make: Callable[[], None]) -> Case:
    return Case("train --task rte --model model", ("model", *named), make=make)


def reported(*named: str, make: Callable[[], None]) -> Case:
    return Case("report table.yaml", ("results/runs/t5-rte-pt-", *named), TABLE, make)


# The cases ------------------------------------------------------------------------------------------------------------

FLAGS = {
    "a misspelt flag": Case(
        "train --task rte --botleneck 10", ("unknown flag --botleneck", "did you mean 'bottleneck'?")
    ),
    "a flag with one dash": Case("train -task rte", ("unexpected word '-task'", "--task rte")),
    "a word without a flag": Case("train --task rte adept", ("unexpected word 'adept'", "--task rte")),
    "a flag without its value": Case("train --task rte --seed", ("--seed", "expected one argument")),
    "no task": Case("train", ("--task is missing", "--task rte")),
    "an empty task": Case("train --task ''", ("--task must be text, not ''",)),
    "an unknown task": Case("train --task rt", ("unknown task 'rt'", "did you mean 'rte'?")),
    "an unknown method": Case("train --task rte --method addept", ("unknown method 'addept'", "did you mean 'adept'?")),
    "an unknown protocol": Case(
        "train --task rte --protocol oficial", ("unknown protocol 'oficial'", "did you mean 'official'?")
    ),
    "a protocol above its folder": Case(
        "train --task rte --protocol ../base", ("unknown protocol '../base'", "official, paper")
    ),
    "a misspelt group": Case("train --task @gleu", ("unknown task group '@gleu'", "did you mean '@glue'?")),
    "task and task file": Case(
        "train --task rte --task_file task.yaml", ("--task rte", "two tasks; give one"), {"task.yaml": TASK_FILE}
    ),
    "a task file that is not there": Case("train --task_file no.yaml", ("cannot read no.yaml", "No such file")),
    "a word for a number": Case("train --task rte --steps many", ("--steps must be a whole number", "'many'")),
    "a fraction of a step": Case("train --task rte --steps 1.5", ("--steps must be a whole number", "'1.5'")),
    "a negative seed": Case("train --task rte --seed -1", ("--seed", ">= 0", "-1")),
    "a huge seed": Case("train --task rte --seed 99999999999999999999", ("--seed", "<= 2147483647")),
    "a seed of 300 digits": Case("train --task rte --seed 1e300", ("--seed", "<= 2147483647")),
    "a rate that is no number": Case("train --task rte --prompt_lr nan", ("--prompt_lr must be a number", "nan")),
    "an infinite rate": Case("train --task rte --offset_lr inf", ("--offset_lr must be a number", "inf")),
    "a negative rate": Case("train --task rte --prompt_lr -0.1", ("--prompt_lr", ">= 0.0", "-0.1")),
    "no batch": Case("train --task rte --batch_size 0", ("--batch_size", ">= 1", "not 0")),
    "a huge prompt": Case("train --task rte --prompt_len 1000000000000", ("--prompt_len", "<= 16384")),
    "a huge bottleneck": Case("train --task rte --bottleneck 1000000000000", ("--bottleneck", "<= 16384")),
    "a huge rank": Case("train --task rte --method dept --rank 1000000000000", ("--rank", "<= 16384")),
    "a huge source": Case(
        "train --task rte --max_source_len 99999999999999999999999", ("--max_source_len", "<= 1000000")
    ),
    "a huge target": Case(
        "train --task stsb --max_target_len 99999999999999999999999", ("--max_target_len", "<= 1000000")
    ),
    "all dropped": Case("train --task rte --model_dropout 1", ("--model_dropout", "<= 0.99")),
    "a choice that is none": Case(
        "train --task rte --scoring beam", ("--scoring must be one of generate, likelihood", "'beam'")
    ),
    "neither true nor false": Case(
        "train --task rte --group_by_length yes", ("--group_by_length must be true or false", "'yes'")
    ),
    "another method's flag": Case(
        "train --task rte --method pt --bottleneck 10", ("--bottleneck has no effect on method 'pt'",)
    ),
    "another task's flag": Case(
        "train --task rte --stsb_rounding 0.1", ("--stsb_rounding has no effect on task 'rte'",)
    ),
    "a prompt method without a prompt": Case(
        "train --task rte --method pt --prompt_len 0", ("--prompt_len must be >= 1", "'pt'")
    ),
    "a field emptied": Case("train --task rte --bottleneck none", ("method 'adept' needs --bottleneck",)),
    "a metric of another task": Case("train --task rte --select_on f1", ("--select_on 'f1'", "rte: accuracy")),
    "a rule without few shots": Case(
        "train --task rte --few_shot_rule released", ("--few_shot_rule", "without --few_shot")
    ),
    "more shots than rows": Case(
        "train --task rte --few_shot 100", ("--few_shot 100 is more than the 24 training rows",)
    ),
    "released shots of free text": Case(
        "train --task nq --few_shot 16 --few_shot_rule released", ("free text", "--few_shot_rule balanced")
    ),
    "likelihood of free text": Case(
        "train --task stsb --scoring likelihood", ("'stsb' has free targets", "--scoring generate")
    ),
    "programs without permission": Case("train --task mbpp --model codegen", ("'mbpp'", "--allow_code_execution")),
    "programs on T5": Case(
        "train --task mbpp --allow_code_execution", ("'mbpp'", "decoder-only", "--model codegen-350m")
    ),
    "a prompt beyond the positions": Case(
        "train --task rte --model llama --prompt_len 500",
        ("--prompt_len 500 + --max_source_len 64", "the model's 512 positions"),
    ),
    "no room beside the cue": Case(
        "train --task rte --model llama --max_source_len 2", ("--max_source_len 2 leaves no room", "'answer:'")
    ),
    "a prompt from no text": Case(
        "train --task rte --prompt_init text --prompt_init_text ''", ("--prompt_init_text must be text",)
    ),
    "a prompt from no tokens": Case(
        "train --task rte --model broken --prompt_init text --prompt_init_text ' '",
        ("--prompt_init_text ' ' has no tokens",),
        make=lambda: shutil.copytree("llama", "broken") and edit_tokenizer_to_drop_blanks("broken"),
    ),
    "an unknown device": Case("train --task rte --device gpu", ("--device gpu cannot be used here", "--device auto")),
    "a device without values": Case(
        "train --task rte --device meta", ("--device meta cannot be used here", "--device auto")
    ),
    "a device that is not here": Case(
        "train --task rte --device cuda:99", ("--device cuda:99 cannot be used here", "--device auto")
    ),
    "an unknown tracker": Case("train --task rte --track wandbb", ("--track must be one of none, wandb", "'wandbb'")),
    "a data folder that is not there": Case(
        "train --task rte --data_dir nowhere", ("--data_dir nowhere is not a folder", ".parquet")
    ),
    "a results folder that is a file": Case(
        "train --task rte --results_dir file", ("--results_dir file", "a folder is"), {"file": ""}
    ),
    "a results folder in a file": Case(
        "train --task rte --results_dir file/x", ("file is a file", "a folder is needed"), {"file": ""}
    ),
    "a name too long for a file": Case(f"train --task rte --results_dir {'x' * 300}", ("File name too long",)),
    "a password in a place": Case(
        "train --task rte --data_dir https://me:hunter2@host/x", ("--data_dir holds a password", "environment")
    ),
}


def edit_tokenizer_to_drop_blanks(folder: str) -> None:
    path = Path(folder, "tokenizer.json")
    path.write_text(
        json.dumps(
            json.loads(path.read_text()) | {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}}
        )
    )


YAML = {
    "an unknown key": config_file("prompt_length: 5", "unknown field 'prompt_length'", "did you mean 'prompt_len'?"),
    "a key that is a number": config_file("7: seven", "unknown field '7'"),
    "a wrong type": config_file("seed: [1, 2]", "--seed must be a whole number", "[1, 2]"),
    "a boolean for a number": config_file("batch_size: true", "--batch_size must be a whole number", "True"),
    "no value": config_file("steps:", "--steps must be a whole number", "not empty"),
    "a null character": config_file('wandb_project: "a\\0b"', "--wandb_project holds a control character"),
    "what clears a terminal": config_file('wandb_project: "\\e[2J"', "--wandb_project holds a control character"),
    "a key written twice": config_file("seed: 1\nsteps: 5\nseed: 2", "key 'seed' is written twice", "line 1"),
    "a list at the top": config_file("- seed: 1", "must hold 'field: value' lines, not a list"),
    "a word at the top": config_file("seed", "must hold 'field: value' lines, not a str"),
    "tabs": config_file("seed: 1\n\tsteps: 5", "not valid YAML", "line 2"),
    "not UTF-8": config_file(b"wandb_project: caf\xe9", "cannot read mine.yaml", "0xe9"),
    "binary": config_file(bytes(range(256)), "cannot read mine.yaml"),
    "an open bracket": config_file("seed: {", "not valid YAML", "line 1"),
    "a block of an unknown name": config_file(
        '"@adpet": {seed: 3}', "'@adpet' names no method, task", "did you mean 'adept'?"
    ),
    "a block that is no mapping": config_file('"@adept": 5', "'@adept' must hold 'field: value' lines"),
    "a billion laughs": config_file(
        LAUGHS.replace("*x0", "lol"), "not valid YAML", "write the value again in place of the alias *x1"
    ),
    "an alias of itself": config_file("seed: &a [*a]", "write the value again in place of the alias *a"),
    "a thousand brackets": config_file("seed: " + "[" * 5000, "not valid YAML", "recursion"),
    "a number of a million bits": config_file("seed: 0x" + "f" * 50_000, "not valid YAML", "200,000 bits"),
    "an object": config_file(
        "seed: !!python/object/apply:pathlib.Path.touch [executed]", "not valid YAML", "python/object"
    ),
    "a boolean that is none": config_file("group_by_length: !!bool maybe", "not valid YAML", "maybe"),
    "a date that is none": config_file("seed: 2024-13-45", "not valid YAML", "month"),
    "more than a config": config_file("# " + "x" * 300_000, "more than 200,000 bytes"),
    "a folder": Case("train --task rte --config data", ("cannot read data", "Is a directory")),
    "a file that never ends": Case("train --task rte --config /dev/zero", ("/dev/zero has more than 200,000 bytes",)),
    "a file that is not there": Case("train --task rte --config no.yaml", ("cannot read no.yaml", "No such file")),
    "a task file with a huge number": Case(
        "train --task_file task.yaml",
        ("task.yaml is not valid YAML", "bits"),
        {"task.yaml": f"name: 0x{'f' * 20_000}\n"},
    ),
    "a table that is not there": Case("sweep no.yaml", ("cannot read no.yaml", "No such file")),
    "a table with a number as key": Case("sweep t.yaml", ("t.yaml: unknown key '7'",), {"t.yaml": "7: seven"}),
    "a table of a billion runs": Case(
        "sweep t.yaml",
        ("t.yaml", "100,000,000 runs", "at most 10,000"),
        {"t.yaml": f"title: t\ngrid: [{{{HUNDREDS}}}]"},
    ),
    "a table without a grid": Case("report t.yaml", ("t.yaml: 'grid' is missing",), {"t.yaml": "title: t"}),
    "a flag that no run of a table uses": Case(
        "sweep table.yaml --lora_alpha 3", ("--lora_alpha 3 has no effect on any run",), TABLE
    ),
}

DATA = {
    "an empty file": data({"mine/rte/train.jsonl": ""}, "mine/rte/train.jsonl: no rows"),
    "no file": data(
        {"mine/cb/train.jsonl": ""}, "data of task 'rte' not found", "mine/rte/train.parquet", "--data_dir DIR reads"
    ),
    "a folder in place of a file": data(
        {"mine/rte/train.jsonl/x": ""}, "not found: looked for mine/rte/train.parquet and .jsonl"
    ),
    "binary garbage": data({"mine/rte/train.jsonl": bytes(range(256))}, "mine/rte/train.jsonl, line 1"),
    "garbage called parquet": data(
        {"mine/rte/train.parquet": bytes(range(256))}, "cannot read mine/rte/train.parquet", "Parquet"
    ),
    "a torn line": data({"mine/rte/train.jsonl": '{"sentence1": "a", "sen'}, "mine/rte/train.jsonl, line 1: not JSON"),
    "a thousand brackets": data({"mine/rte/train.jsonl": "[" * 100_000}, "mine/rte/train.jsonl, line 1", "recursion"),
    "a number of 5,000 digits": data(
        {"mine/rte/train.jsonl": "9" * 5000}, "cannot read mine/rte/train.jsonl", "digits"
    ),
    "a row that is a list": data({"mine/rte/train.jsonl": "[1, 2]"}, "row 0: not a row but [1, 2]", "{column: value}"),
    "a row that is a word": data({"mine/rte/train.jsonl": '"rte"'}, "row 0: not a row but 'rte'", "{column: value}"),
    "half a character": data(rows({"sentence1": "\ud800"}), "train.jsonl, row 4", "surrogates not allowed"),
    "a missing column": data(
        rows({"sentence2": GONE}), "train.jsonl, row 4", "needs the column 'sentence2'; found sentence1"
    ),
    "a label outside": data(rows({"label": 2}), "train.jsonl, row 4: label 2 is not one of 0..1"),
    "a label of the hidden test set": data(rows({"label": -1}), "row 4: label -1 is not one of 0..1"),
    "a label in words": data(rows({"label": "entailment"}), "row 4: label 'entailment' is not one of 0..1"),
    "a boolean label": data(rows({"label": True}), "row 4: label True is not one of 0..1"),
    "no text": data(rows({"sentence1": None}), "row 4: column 'sentence1' holds None where text is needed"),
    "NaN in place of text": data(rows({"sentence1": NAN}), "row 4: column 'sentence1' holds nan where text is needed"),
    "a list in place of text": data(
        rows({"sentence1": ["a"]}), "row 4: column 'sentence1' holds ['a'] where text is needed"
    ),
    "a score outside": data(
        rows({"label": 7}, task="stsb"), "row 3: label 7.0 is no similarity of 0 to 5", task="stsb"
    ),
    "an infinite score": data(
        rows({"label": float("inf")}, task="stsb"), "row 3: label inf is no similarity", task="stsb"
    ),
    "a word beyond the text": data(
        rows({"span1_index": 10**20}, task="wsc"), "train.jsonl, row", "too large", task="wsc"
    ),
    "a question without a number": data(rows({"idx": 3}, task="multirc"), "train.jsonl, row", task="multirc"),
    "no answers": data(rows({"answers": []}, task="nq"), "train.jsonl, row 2: column 'answers' holds []", task="nq"),
    "a torn parquet": Case(
        "train --task rte --data_dir mine",
        ("cannot read mine/rte/train.parquet",),
        make=parquet({"sentence1": ["a"] * 99}, cut=200),
    ),
    "a parquet with another column": Case(
        "train --task rte --data_dir mine",
        ("mine/rte/train.parquet, row 0", "needs the column 'label'; found premise"),
        make=parquet({"premise": ["a"], "sentence2": ["b"]}),
    ),
    "a parquet of bytes": Case(
        "train --task rte --data_dir mine",
        ("mine/rte/train.parquet, row 0", "holds b'a' where text is needed"),
        make=parquet({"sentence1": [b"a"], "sentence2": [b"b"], "label": [0]}),
    ),
    "a parquet with gaps": Case(
        "train --task rte --data_dir mine",
        ("mine/rte/train.parquet, row 1", "holds None where text is needed"),
        make=parquet({"sentence1": ["a", None], "sentence2": ["b", "b"], "label": [0, 0]}),
    ),
    "a parquet of mixed types": Case(
        "train --task rte --data_dir mine",
        ("mine/rte/train.parquet, row 0", "label 0.0 is not one of 0..1"),
        make=parquet({"sentence1": ["a"], "sentence2": ["b"], "label": [0.0]}),
    ),
    "too few rows to carve": data(
        {**rows(task="sst2"), **rows(task="sst2", split="validation")},
        "'sst2' sets 1,000 training rows aside",
        task="sst2",
    ),
    "a data folder's name too long": Case(
        f"train --task rte --data_dir {'x' * 300}", ("--data_dir x", "is not a folder")
    ),
    "a CSV of another width": Case(
        "train --task_file task.yaml",
        ("t.csv, line 2: 1 cells, but the header has 2",),
        {"task.yaml": TASK_FILE, "t.csv": "body,funny\na\n"},
    ),
    "a CSV of one long line": Case(
        "train --task_file task.yaml",
        ("t.csv, line 1: the column '' is there twice",),
        {"task.yaml": TASK_FILE, "t.csv": "," * 200_000},
    ),
}

MODELS = {
    "a model that is nowhere": Case(
        "train --task rte --model no-such/model", ("'no-such/model' not found", "smollm2-135m", "folder")
    ),
    "a model's name of no form": Case("train --task rte --model 'a b c'", ("'a b c' not found", "local folder")),
    "a folder without a model": Case(
        "train --task rte --model data", ("model folder data cannot be loaded", "save_pretrained")
    ),
    "a model's name too long for a file": Case(f"train --task rte --model {'x' * 300}", ("not found", "local folder")),
    "a file in place of a model": Case(
        "train --task rte --model t5/config.json", ("'t5/config.json' not found", "local folder")
    ),
    "a config that is no JSON": modelled("model folder model cannot be loaded", "JSON", make=model("config.json", "{")),
    "a config that is a list": modelled(
        "model folder model cannot be loaded", "save_pretrained", make=model("config.json", "[1]")
    ),
    "a model of unknown type": modelled(
        "cannot be loaded", "flux", make=model("config.json", '{"model_type": "flux_capacitor"}')
    ),
    "torn weights": modelled(
        "cannot be loaded", "save_pretrained", make=model("model.safetensors", lambda content: content[:-100])
    ),
    "weights of garbage": modelled(
        "cannot be loaded", "save_pretrained", make=model("model.safetensors", bytes(range(256)))
    ),
    "a torn tokenizer": modelled(
        "cannot be loaded", "save_pretrained", make=model("tokenizer.json", lambda content: content[:500])
    ),
    "a token beyond the rows": modelled(
        "'sentence1', id 340", "328 rows", make=model("tokenizer.json", long_tokenizer)
    ),
    "code of its own": modelled("cannot be loaded", "custom code", make=model("config.json", own_code)),
    "weights that run code": modelled("cannot be loaded", "Weights only load failed", make=pickled_model),
}

PROMPT = "encoder.embed_tokens.prompt"

ADAPTERS = {
    "no adapter": Case(
        "train --task rte --init_from t5-rte-adept-0000", ("no adapter 't5-rte-adept-0000'", "results/runs")
    ),
    "an adapter above the results": Case(
        "train --task rte --init_from ../elsewhere",
        ("no adapter '../elsewhere'", "looked for adapter.safetensors in ../elsewhere\n"),
        make=lambda: shutil.copytree("trained", "results/elsewhere"),
    ),
    "an adapter of a run that is not finished": restored(
        "no adapter in adapter: its run is not finished",
        "goes on",
        make=lambda: Path("adapter").mkdir() or Path("adapter/checkpoint.safetensors").write_bytes(b"x"),
    ),
    "an adapter's name too long": Case(
        f"train --task rte --init_from {'x' * 300}", ("no adapter 'x", "adapter.safetensors")
    ),
    "a folder without an adapter": Case(
        "train --task rte --init_from data", ("no adapter 'data'", "adapter.safetensors")
    ),
    "a link to nothing": restored("no adapter", make=lambda: Path("adapter").symlink_to("nowhere")),
    "a link to itself": restored("no adapter", make=lambda: Path("adapter").symlink_to("adapter")),
    "weights that are a folder": restored(
        "no adapter", make=lambda: Path("adapter/adapter.safetensors").mkdir(parents=True)
    ),
    "weights that never end": restored(
        "no adapter",
        make=lambda: Path("adapter").mkdir() or Path("adapter/adapter.safetensors").symlink_to("/dev/zero"),
    ),
    "an adapter of another method": Case(
        "train --task rte --method pt --prompt_len 5 --init_from trained",
        ("does not fit: it has", "offset.b_1"),
    ),
    "an adapter of another size": Case(
        "train --task rte --prompt_len 6 --bottleneck 3 --init_from trained",
        (f"{PROMPT} is [5, 32], this run needs [6, 32]",),
    ),
    "an adapter of another model": Case(
        f"train {TINY} --model llama --init_from trained",
        (
            "the adapter in trained was trained on the base model",
            "whose weights are not those of llama",
            "--model must name",
        ),
    ),
    "a tensor too many": restored(
        "does not fit: it has", "../../x", make=adapter(lambda w: w.update({"../../x": torch.zeros(1)}))
    ),
    "a name of many lines": restored(
        "does not fit", "a b c", make=adapter(lambda w: w.update({"a\nb\r\nc\x1b[2J": torch.zeros(1)}))
    ),
    "a tensor too few": restored("does not fit: it lacks", PROMPT, make=adapter(lambda w: w.pop(PROMPT))),
    "a tensor of another shape": restored(
        "[1, 160]", "[5, 32]", make=adapter(lambda w: w.update({PROMPT: w[PROMPT].reshape(1, 160)}))
    ),
    "NaN in the weights": restored("is damaged", PROMPT, "not finite", make=adapter(lambda w: w[PROMPT][0].fill_(NAN))),
    "infinity in the weights": restored(
        "is damaged", "not finite", make=adapter(lambda w: w[PROMPT][4].fill_(float("inf")))
    ),
    "whole numbers as weights": restored(
        "holds torch.int64", "floating", make=adapter(lambda w: w.update({PROMPT: w[PROMPT].long()}))
    ),
    "empty weights": restored("no readable adapter", make=adapter_file("adapter.safetensors", b"")),
    "random bytes": restored("no readable adapter", make=adapter_file("adapter.safetensors", bytes(range(256)) * 9)),
    "torn weights": restored(
        "no readable adapter", make=adapter_file("adapter.safetensors", lambda content: content[:-9])
    ),
    "a header of a quintillion bytes": restored(
        "no readable adapter",
        "eader",
        make=adapter_file("adapter.safetensors", lambda content: (10**18).to_bytes(8, "little") + content[8:]),
    ),
    "a tensor of a quintillion numbers": restored(
        "no readable adapter",
        make=adapter_file("adapter.safetensors", lambda content: content.replace(b"[5,32]", b"[9999999999999,99999]")),
    ),
    "a pickle called safetensors": restored(
        "no readable adapter", make=adapter_file("adapter.safetensors", b"\x80\x04cos\nsystem\n.")
    ),
    "a foreign adapter that runs code": restored(
        "no readable adapter", "eights", make=foreign({"prompt_embeddings": Touch()})
    ),
    "a foreign adapter that is code": restored("no readable adapter", make=foreign(Touch())),
    "a foreign adapter that is a tensor": restored("{name: tensor} and nothing else", make=foreign(torch.zeros(5, 32))),
    "a foreign adapter that is a list": restored("{name: tensor} and nothing else", make=foreign([torch.zeros(5, 32)])),
    "a foreign adapter of numbers": restored(
        "{name: tensor} and nothing else", make=foreign({"prompt_embeddings": 3, 7: "x"})
    ),
    "a foreign adapter that is sparse": restored(
        "{name: tensor} and nothing else", make=foreign({"prompt_embeddings": torch.zeros(5, 32).to_sparse()})
    ),
    "a foreign adapter of other names": restored("does not fit: it lacks", make=foreign({"x": torch.zeros(5, 32)})),
    "a run that is nowhere": Case("load t5-rte-adept-0000", ("no adapter 't5-rte-adept-0000'", "results/runs")),
    "a run above the results": Case("load ../elsewhere", ("no adapter '../elsewhere'",)),
    "a description that is not there": loaded(
        "adapter.json cannot be read", "No such", make=lambda: adapter()() or Path("adapter/adapter.json").unlink()
    ),
    "a torn description": loaded(
        "adapter.json cannot be read", make=adapter_file("adapter.json", lambda content: content[:99])
    ),
    "a description that is a list": loaded(
        "adapter.json cannot be read", "as the run wrote it", make=adapter_file("adapter.json", b"[1]")
    ),
    "a description without a config": loaded(
        "adapter.json cannot be read", "config", make=adapter_file("adapter.json", b"{}")
    ),
    "a config that is a number": loaded(
        "adapter.json cannot be read", make=adapter_file("adapter.json", b'{"config": 3}')
    ),
    "a description of brackets": loaded(
        "adapter.json cannot be read", "recursion", make=adapter_file("adapter.json", b"[" * 100_000)
    ),
    "a config without a task": loaded("adapter.json cannot be read", "'task'", make=adapter(task=GONE)),
    "a config of an unknown task": Case("load adapter", ("unknown task 'rta'", "'rte'"), make=adapter(task="rta")),
    "a config of an unknown method": loaded("unknown method 'addept'", "'adept'", make=adapter(method="addept")),
    "a config without a bottleneck": loaded("method 'adept' needs --bottleneck", make=adapter(bottleneck=None)),
    "a config with a word for a number": loaded(
        "--prompt_len must be a whole number", "'five'", make=adapter(prompt_len="five")
    ),
    "a config of a huge prompt": loaded("--prompt_len", "<= 16384", make=adapter(prompt_len=10**12)),
    "a config without a length": loaded("needs --max_source_len", make=adapter(max_source_len=None)),
    "a config of another size": loaded("this run needs [6, 32]", make=adapter(prompt_len=6)),
    "a config of a model that is nowhere": Case(
        "load adapter", ("'no-such/model' not found",), make=adapter(model="no-such/model")
    ),
}

RECORDS = {
    "a record of a newer schema": reported("not of schema 1", "another version of adept", make=record(schema=2)),
    "a record without a schema": reported("not of schema 1", make=record(schema=GONE)),
    "a record that is a folder": reported("no readable run record", "move it away", make=record_file(None)),
    "an empty record": reported("no readable run record", "move it away", make=record_file(b"")),
    "a torn record": reported(
        "no readable run record", "move it away", make=record_file(b'{"schema": 1, "run_id": "t5-')
    ),
    "a record that is not UTF-8": reported(
        "no readable run record", make=record_file(b'{"schema": 1, "run_id": "\xe9"}')
    ),
    "a record of brackets": reported("no readable run record", "recursion", make=record_file(b"[" * 100_000)),
    "a record that is a list": reported("not of schema 1", make=record_file(b"[1]")),
    "a record that lacks its scores": reported(
        "lacks test, validation", "move it away", make=record(test=GONE, validation=GONE)
    ),
    "a record whose score is a word": reported(
        "'test' is {'accuracy': 'good'}", "move", make=record(test={"accuracy": "good"})
    ),
    "a record whose score is NaN": reported(
        "no readable run record (it holds NaN)", make=record(test={"accuracy": NAN})
    ),
    "a record whose count is a word": reported("'trainable_params' is 'many'", make=record(trainable_params="many")),
    "a record whose history is a number": reported("'history' is 3", make=record(history=3)),
    "a record whose notes are numbers": reported("'notes' is [1]", make=record(notes=[1])),
    "a record without its config": reported("'config' is {}", make=record(config={})),
    "a record of another run": reported(
        "is the record of the run t5-base-rte-pt-0", make=record(run_id="t5-base-rte-pt-0")
    ),
    "axes of lists": Case(
        "report table.yaml",
        ("table.yaml: 'columns' must be a list of single values",),
        {"table.yaml": TABLE["table.yaml"] + "columns: [[task]]\n"},
    ),
    "seeds of lists": Case(
        "sweep table.yaml",
        ("table.yaml: 'seeds' must be a list of single values",),
        {"table.yaml": TABLE["table.yaml"] + "seeds: [[1], 2]\n"},
    ),
    "a mean of nothing": Case(
        "report table.yaml",
        ("table.yaml: 'means: all' must be a list of tasks, not None",),
        {"table.yaml": TABLE["table.yaml"] + "means: {all: }\n"},
    ),
    "a sweep onto a torn record": Case(
        "sweep table.yaml", ("no readable run record", "move it away"), TABLE, record_file(b"{")
    ),
    "a run onto a torn record": Case(
        "train --task rte --method pt --prompt_len 9 --steps 30000 --batch_size 32 --max_source_len 256",
        ("no readable run record", "move it away"),
        make=record_file(b"{"),
    ),
}

CASES: dict[str, Case] = {
    f"{group}: {name}": case
    for group, cases in {
        "flags": FLAGS,
        "YAML": YAML,
        "data": DATA,
        "models": MODELS,
        "adapters": ADAPTERS,
        "records": RECORDS,
    }.items()
    for name, case in cases.items()
}


# The test -------------------------------------------------------------------------------------------------------------


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """{path: (size, time of the last change)} of all files in a folder."""
    paths = [path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()]
    return {str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_and_leaves_nothing(name, world, capfd):
    case = CASES[name]
    for path, content in case.files.items():
        (world / path).parent.mkdir(parents=True, exist_ok=True)
        (world / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    if case.make:
        case.make()
    before = everything(world)
    capfd.readouterr()
    code = call(case.command)
    out, err = capfd.readouterr()
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ") and err.endswith("\n") and err[:-1].isprintable(), err
    assert [part for part in case.named if part not in err] == [], err
    assert len(err) < 2100
    assert everything(world) == before
