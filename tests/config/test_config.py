"""RunConfig: the paper's settings, order of layers, run ids, and one line for every mistake."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from adept.base import paths
from adept.base.errors import UserError
from adept.base.options import is_place, option_type
from adept.config.command_line import command_line, parse
from adept.config.layers import resolve
from adept.config.run import METHOD_OPTIONS, OPTIONS
from adept.methods import METHODS
from adept.tasks import GROUPS, ROWS, TASKS

PLACES = [name for name, field in OPTIONS.items() if is_place(field)]


def from_command_line(*words: str):
    """What train.py does with its arguments before anything is loaded."""
    flags, rest = parse(command_line(""), list(words))
    return resolve(flags, getattr(rest, "config", None))


def refusal(*words: str) -> str:
    """The one line that a wrong command line gets."""
    with pytest.raises(UserError) as caught:
        from_command_line(*words)
    text = str(caught.value)
    assert "\n" not in text
    return text


# The paper's settings -------------------------------------------------------------------------------------------------


def test_the_papers_command_has_the_papers_settings():
    config = from_command_line("--task", "rte", "--method", "adept", "--prompt_len", "60", "--bottleneck", "10")
    expected = {
        "model": "t5-base", "prompt_len": 60, "bottleneck": 10, "steps": 30_000, "batch_size": 32, "grad_accum": 1,
        "prompt_lr": 0.3, "offset_lr": 1e-4, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6, "weight_decay": 0.01,
        "schedule": "linear", "warmup_steps": 500, "eval_every": 1000, "max_source_len": 256, "prompt_init": "vocab",
        "prompt_init_vocab": 5000, "bottleneck_dropout": 0.0, "select_on": "accuracy", "protocol": "paper", "seed": 42,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("method", "shape"),
    [
        ("adept", {"prompt_len": 60, "bottleneck": 19}),
        ("pt", {"prompt_len": 100}),
        ("dept", {"prompt_len": 60, "rank": 30, "offset_len": 256, "offset_alpha": 0.0}),
        ("lora", {"rank": 16, "lora_alpha": 32.0, "lora_dropout": 0.1}),
        ("full", {"lr": 1e-5}),
        ("zero_shot", {"steps": 0}),
    ],
)
def test_each_methods_own_defaults(method, shape):
    config = resolve({"task": "rte", "method": method})
    assert {name: getattr(config, name) for name in shape} == shape


def test_what_the_official_protocol_changes():
    paper, official = (resolve({"task": "stsb", "protocol": protocol}) for protocol in ("paper", "official"))
    changed = {name: official.get(name) for name in OPTIONS if official.get(name) != paper.get(name)}
    assert changed == {
        "protocol": "official", "prompt_init": "text", "bottleneck_dropout": 0.1, "weight_decay": 0.0, "beta2": 0.999,
        "stsb_rounding": 0.1, "group_by_length": False, "adamw": "transformers4", "accumulate": "batches",
        "decoding": "transformers4", "invalid_answers": "released", "max_new_tokens": 19,
    }  # fmt: skip
    assert resolve({"task": "rte", "method": "dept", "protocol": "official"}).offset_alpha == 8
    for method in ("pt", "pt_table"):
        assert resolve({"task": "rte", "method": method, "protocol": "official"}).prompt_init == "random"
    code = resolve({"task": "mbpp", "protocol": "official", "allow_code_execution": True})
    assert code.max_new_tokens == 256  # the release has no code generation


def test_a_flag_that_is_true_or_false_may_stand_alone():
    assert from_command_line("--task", "rte", "--compare_scoring", "--seed", "1").compare_scoring is True
    assert from_command_line("--task", "rte", "--group_by_length", "false").group_by_length is False


@pytest.mark.parametrize(
    ("method", "model", "shape", "params"),
    [
        ("pt", "codegen-350m", {"prompt_len": 10}, 10_240),
        ("adept", "codegen-350m", {"prompt_len": 7, "bottleneck": 1}, 10_241),
        ("dept", "codegen-350m", {"prompt_len": 7, "rank": 2, "offset_len": 574}, 10_364),
        ("adept", "llama3-8b", {"prompt_len": 7, "bottleneck": 1, "mbpp_cleanup": "lines"}, 40_961),
        ("dept", "llama3-8b", {"prompt_len": 7, "rank": 3, "offset_len": 574}, 42_682),
    ],
)
def test_mbpp_has_the_papers_shapes(method, model, shape, params):
    """Table 7's parameter counts from embedding widths 1,024 and 4,096; 7 + 318 + 256 tokens are LoPA's 581."""
    config = resolve({"task": "mbpp", "method": method, "model": model, "allow_code_execution": True})
    assert {name: getattr(config, name) for name in shape} == shape
    width = 1024 if model == "codegen-350m" else 4096
    network = (config.get("bottleneck") or 0) * (2 * width + 1) + width
    low_rank = (config.get("rank") or 0) * ((config.get("offset_len") or 0) + width)
    offset = {"pt": 0, "adept": network, "dept": low_rank}[method]
    assert config.prompt_len * width + offset == params
    assert (config.steps, config.batch_size, config.schedule, config.warmup_steps) == (1220, 4, "constant", 0)
    assert (config.temperature, config.top_p, config.max_new_tokens, config.max_source_len) == (0.6, 0.95, 256, 318)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_has_its_methods_options_with_values_and_no_other_methods_options(method):
    config, own = resolve({"task": "rte", "method": method}), METHODS[method].own_options()
    with_value = {name for name in METHOD_OPTIONS if config.get(name) is not None}
    assert {name for name in own if not option_type(own[name].annotation).optional} <= with_value
    assert with_value <= set(own) - set(METHODS[method].evaluation)
    for name in METHOD_OPTIONS - set(METHODS[method].own_options()):
        with pytest.raises(AttributeError, match=f"a run of method '{method}' on task 'rte' has no option '{name}'"):
            getattr(config, name)


@pytest.mark.parametrize(("steps", "warmup"), [(30_000, 500), (5000, 500), (4990, 499), (60, 6), (4, 0)])
def test_warm_up_is_a_tenth_of_a_short_run(steps, warmup):
    assert resolve({"task": "rte", "steps": steps}).warmup_steps == warmup


# Layers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", range(5))
def test_each_layer_wins_over_those_below(layers, tmp_path, monkeypatch):
    """batch_size is 32 in the dataclass, then 1 in base.yaml, 2 in the protocol, 3 in --config, 4 as a flag."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    files = [
        tmp_path / "configs" / "base.yaml",
        tmp_path / "configs" / "protocol" / "paper.yaml",
        tmp_path / "mine.yaml",
    ]
    files[1].parent.mkdir(parents=True)
    for number, file in enumerate(files, 1):
        file.write_text(f"batch_size: {number}\n" if number <= layers else "")
    flags = {"task": "rte", "method": "zero_shot"} | ({"batch_size": 4} if layers == 4 else {})
    assert resolve(flags, str(files[2])).batch_size == (32, 1, 2, 3, 4)[layers]


@pytest.mark.parametrize(
    ("flags", "seed"),
    [
        ({"task": "cola", "method": "pt"}, 1),
        ({"task": "cola", "method": "adept"}, 2),
        ({"task": "boolq", "method": "adept"}, 3),
        ({"task": "boolq", "method": "adept", "model": "somewhere/T5-Small"}, 4),
        ({"task": "boolq", "method": "adept", "seed": 5}, 5),
        ({"task": "rte", "method": "adept"}, 2),
        ({"task": "rte", "method": "dept"}, 6),
    ],
    ids=["plain", "method", "group", "model", "flag", "one of two words", "both words"],
)
def test_blocks_apply_where_all_their_words_match(flags, seed, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        '"@adept": {seed: 2}\n"@superglue": {seed: 3}\n"@t5-small": {seed: 4}\n"@dept @rte": {seed: 6}\nseed: 1\n',
        encoding="utf-8",
    )
    assert resolve(flags, str(file)).seed == seed


def test_the_bundled_models_block_of_base_yaml():
    config = resolve({"task": "rte", "model": "smollm2-135m"})
    assert (config.prompt_lr, config.offset_lr, config.targets) == (1e-2, 1e-3, "words")


def test_task_method_and_protocol_may_come_from_the_config_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("task: cb\nmethod: dept\nprotocol: official\nprompt_lr: 1e-1\n")
    config = from_command_line("--config", str(file))
    assert (config.task, config.method, config.offset_alpha, config.prompt_lr) == ("cb", "dept", 8.0, 0.1)


def test_none_on_the_command_line_empties_an_optional_field():
    assert from_command_line("--task", "rte", "--max_source_len", "none", "--few_shot", "none") == resolve(
        {"task": "rte"}
    )


# Run ids --------------------------------------------------------------------------------------------------------------

OTHER = {
    "task": "mrpc", "method": "pt", "model": "t5-3b", "model_revision": "a1b2", "protocol": "official",
    "init_from": "results/runs/x", "prompt_len": 59, "bottleneck": 18, "rank": 29, "prompt_init": "random",
    "prompt_init_vocab": 100, "prompt_init_text": "Classify:", "bottleneck_init": "width", "bottleneck_dropout": 0.2,
    "offset_len": 255, "offset_alpha": 4, "lora_alpha": 8, "lora_dropout": 0.2, "prompt_lr": 0.2, "offset_lr": 2e-4,
    "lr": 2e-4, "steps": 29_000, "batch_size": 31, "grad_accum": 2, "schedule": "constant", "warmup_steps": 499,
    "weight_decay": 0.02, "beta1": 0.8, "beta2": 0.97, "eps": 1e-8, "max_grad_norm": 0, "model_dropout": 0,
    "precision": "bf16", "seed": 43, "max_source_len": 255, "max_target_len": 3, "targets": "words",
    "data_revision": "a1b2", "few_shot_rule": "released", "max_new_tokens": 3, "stsb_rounding": 0.1,
    "qa_references": "first", "pad_punctuation": False, "cut_references": True, "squad_target": "printed",
    "record_scoring": "row", "winogrande_options": "first_twice", "scitail_test": "hub", "mbpp_prompt": "original",
    "mbpp_cleanup": "lines", "temperature": 0, "top_p": 0.9, "samples": 2, "offset_shift": 50, "without_offset": True,
    "measure_offsets": True, "compare_scoring": True, "fold": True, "compile": True, "checkpoint_activations": True,
    "shard_model": True, "allow_code_execution": True, "split_seed": 43, "few_shot": 16, "group_by_length": False,
    "eval_every": 999, "eval_rows": 99, "scoring": "likelihood", "select_on": "f1", "data_dir": "elsewhere",
    "results_dir": "elsewhere", "device": "cpu", "eval_batch_size": 63, "log_every": 9, "track": "wandb",
    "accumulate": "batches", "adamw": "transformers4", "decoding": "transformers4", "invalid_answers": "released",
    "epochs": 3, "task_prefix": True, "lora_bias": "all", "adapter_blocks": "5-", "train_norms": False,
    "projection_seed": 1, "where": "encoder", "hidden": 27, "keep_tokens": 0.4, "keep_pieces": 0.4, "pieces": 8,
    "network_lr": 2e-4, "side_factor": 4, "side_blocks": "1,2", "side_init": "random", "importance_rows": 8,
    "stage": "fixed", "sparsity": 0.01, "penalty": 0, "mask_lr": 0.2,
    "wandb_project": "mine", "wandb_group": "mine", "save_every": 9,
}  # fmt: skip


def run_ids(field: str) -> tuple[str, str]:
    """Ids of two runs that differ in one field, with a method and a task that use it."""
    method = next((m for m in ("adept", "dept", "lora", *METHODS) if field in METHODS[m].own_options()), "adept")
    other = "mrpc" if field == "select_on" else "rte"
    task = next((task.name for task in ROWS if field in task.options.own_options()), other)
    flags = {"task": task, "method": method, "allow_code_execution": TASKS[task].runs_code}
    if field == "few_shot_rule":
        flags["few_shot"] = 16
    if field in METHODS[method].evaluation:
        flags |= {"steps": 0, "init_from": "results/runs/x"}
    return resolve(flags).run_id, resolve({**flags, field: OTHER[field]}).run_id


def test_run_id_golden():
    """Records are found by this id: a change here orphans every record that was ever written."""
    config = resolve({"task": "rte", "method": "adept", "prompt_len": 60, "bottleneck": 10})
    assert config.run_id == "t5-base-rte-adept-f323c60f"


@pytest.mark.parametrize("field", PLACES)
def test_places_leave_the_run_id_alone(field):
    one, other = run_ids(field)
    assert one == other


# --task_file: tests/tasks/test_custom.py
@pytest.mark.parametrize("field", [name for name in OPTIONS if name not in (*PLACES, "task_file")])
def test_every_other_field_changes_the_run_id(field):
    one, other = run_ids(field)
    assert one != other


def test_a_local_model_counts_by_content_not_by_place(tmp_path):
    original = tmp_path / "a" / "tiny"
    original.mkdir(parents=True)
    (original / "config.json").write_text('{"d_model": 8}')
    (original / "model.safetensors").write_bytes(bytes(100))
    copies = {name: shutil.copytree(original, tmp_path / name / "tiny") for name in ("b", "c", "d")}
    (copies["c"] / "config.json").write_text('{"d_model": 9}')
    (copies["d"] / "model.safetensors").write_bytes(bytes(101))
    first, same, *different = (
        resolve({"task": "rte", "model": str(folder)}).run_id for folder in (original, *copies.values())
    )
    assert first.startswith("tiny-rte-adept-")
    assert first == same
    assert len({first, *different}) == 3


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("", ["--task is missing"]),
        ("--task", ["--task", "expected one argument"]),
        ("--task rte --botleneck 10", ["unknown flag --botleneck", "'bottleneck'"]),
        ("--task rte adept", ["'adept'"]),
        ("--task rt", ["unknown task 'rt'", "'rte'"]),
        ("--task rte --method addept", ["unknown method 'addept'", "'adept'"]),
        ("--task rte --protocol papr", ["unknown protocol 'papr'", "'paper'"]),
        ("--task rte --bottleneck 0", ["--bottleneck", ">= 1", "0"]),
        ("--task rte --steps many", ["--steps", "whole number", "'many'"]),
        ("--task rte --steps 1.5", ["--steps", "whole number", "'1.5'"]),
        ("--task rte --seed -1", ["--seed", ">= 0", "-1"]),
        ("--task rte --prompt_lr nan", ["--prompt_lr", "nan"]),
        ("--task rte --prompt_lr inf", ["--prompt_lr", "inf"]),
        ("--task rte --bottleneck_dropout 1", ["--bottleneck_dropout", "<= 0.99", "1.0"]),
        ("--task rte --group_by_length yes", ["--group_by_length", "true or false", "'yes'"]),
        ("--task rte --scoring beam", ["--scoring", "generate, likelihood", "'beam'"]),
        ("--task stsb --stsb_rounding 0.3", ["--stsb_rounding", "0.2, 0.1", "0.3"]),
        ("--task rte --stsb_rounding 0.1", ["--stsb_rounding", "no effect", "'rte'"]),
        ("--task nq --winogrande_options both", ["--winogrande_options", "'nq'", "qa_references"]),
        ("--task rte --few_shot_rule released", ["--few_shot_rule", "--few_shot"]),
        ("--task mbpp --allow_code_execution --samples 0", ["--samples", ">= 1"]),
        ("--task rte --compare_scoring maybe", ["--compare_scoring", "true or false", "'maybe'"]),
        ("--task rte --method pt --bottleneck 10", ["--bottleneck", "'pt'", "prompt_len"]),
        ("--task rte --method pt --prompt_len 0", ["--prompt_len", "'pt'"]),
        ("--task rte --prompt_lr none", ["--prompt_lr", "'adept'"]),
        ("--task rte --select_on f1", ["--select_on 'f1'", "rte", "accuracy"]),
        ("--task rte --config no/such.yaml", ["no/such.yaml"]),
        ("--task rte --config configs", ["cannot read configs"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_command_line_gets_one_line_that_names_the_mistake(words, named, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = refusal(*words.split())
    assert [part for part in named if part not in text] == [], text


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("prompt_length: 5", ["mine.yaml", "'prompt_length'", "'prompt_len'"]),
        ('"@adept": {prompt_length: 5}', ["mine.yaml", "@adept", "'prompt_length'"]),
        ('"@adept": 5', ["mine.yaml", "'@adept'"]),
        ("7: seven", ["mine.yaml", "'7'"]),
        ("seed: 1\nsteps: 5\nseed: 2", ["mine.yaml", "'seed'", "twice"]),
        ("- seed: 1", ["mine.yaml"]),
        ("seed: [1, 2]", ["--seed", "[1, 2]"]),
        ("batch_size: true", ["--batch_size", "True"]),
        ("steps:", ["--steps"]),
        ("few_shot: .nan", ["--few_shot", "nan"]),
        ("seed: {", ["mine.yaml", "YAML"]),
        ("rank: 5", ["--rank", "'adept'"]),
    ],
)
def test_a_wrong_config_file_gets_one_line_that_names_the_mistake(content, named, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    text = refusal("--task", "rte", "--method", "adept", "--config", str(file))
    assert [part for part in named if part not in text] == [], text


def test_a_config_file_that_is_no_text(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    assert str(file) in refusal("--task", "rte", "--config", str(file))


def test_help_lists_every_field(capsys):
    with pytest.raises(SystemExit) as stopped:
        from_command_line("--help")
    shown = re.findall(r"^  --(\w+)", capsys.readouterr().out, re.MULTILINE)
    assert stopped.value.code == 0
    assert sorted(shown) == sorted([*OPTIONS, "config"])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--task", "rte", "--bottleneck", "ten"], ["--bottleneck", "'ten'"]),
        (["--task", "rte"], ["nyu-mll/glue", "--data_dir", "smollm2-135m"]),
        (["--task", "rte", "--data_dir", "DATA", "--model", "no-such/model"], ["'no-such/model'", "smollm2-135m"]),
    ],
    ids=["bad value", "no data", "no model"],
)
def test_train_py_prints_one_line_and_exits_with_2(words, named, data_dir, tmp_path):
    words = [data_dir if word == "DATA" else word for word in words]
    done = subprocess.run(
        [sys.executable, "train.py", *words, "--results_dir", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .+\n", done.stderr), done.stderr
    assert [part for part in named if part not in done.stderr] == [], done.stderr


def test_a_block_that_names_nothing_is_an_error(tmp_path):
    file = tmp_path / "typo.yaml"
    file.write_text('"@adpet": {seed: 3}\n')
    with pytest.raises(UserError, match=r"'@adpet' names no method, task, group or model; did you mean 'adept'\?"):
        resolve({"task": "rte"}, str(file))


def test_steps_have_no_meaning_without_training():
    assert resolve({"task": "rte", "method": "zero_shot"}).steps == 0
    with pytest.raises(UserError, match="--steps has no effect on method 'zero_shot'"):
        resolve({"task": "rte", "method": "zero_shot", "steps": "50"})


def test_the_same_shapes_with_other_weights_are_another_model(tmp_path):
    from safetensors.torch import save_file

    ids = []
    for value, place in ((0.0, "a"), (1.0, "b"), (0.0, "c")):
        folder = tmp_path / place / "model"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        save_file({"w": torch.full((100, 100), value)}, folder / "model.safetensors")
        ids.append(resolve({"task": "rte", "model": str(folder)}).run_id)
    assert ids[0] == ids[2] != ids[1]


# Groups of tasks ------------------------------------------------------------------------------------------------------


@pytest.fixture
def ran(monkeypatch):
    """[(task, method)] of the runs that train.py starts; QQP's fails."""
    from adept.commands import train
    from adept.training import loop

    started = []

    def run(config):
        started.append((config.task, config.method))
        if config.task == "qqp":
            raise UserError("no data")
        return {"run_id": config.run_id}

    monkeypatch.setattr(loop, "run", run)
    monkeypatch.setattr(train, "summary_line", lambda record: record["run_id"])
    return started


def test_a_group_runs_each_of_its_tasks_and_goes_on_after_a_failure(ran, tmp_path, capsys):
    import train

    assert train.main(["--task", "@glue", "--method", "pt", "--results_dir", str(tmp_path)]) == 2
    assert ran == [(name, "pt") for name in GROUPS["glue"]]
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 7
    assert err.splitlines() == ["error: no data", "error: 1 of 8 tasks did not run: qqp"]
    assert train.main(["--task", "@mrqa", "--results_dir", str(tmp_path)]) == 0


def test_a_group_may_stand_in_the_config_file(ran, tmp_path):
    import train

    file = tmp_path / "mine.yaml"
    file.write_text('task: "@code"\nallow_code_execution: true\n')
    assert train.main(["--config", str(file), "--results_dir", str(tmp_path)]) == 0
    assert ran == [("mbpp", "adept")]


def test_a_group_is_no_single_run_and_an_unknown_one_is_told(ran, capsys):
    import train

    with pytest.raises(UserError, match=r"'@mrqa' stands for several tasks \(nq, .*\), and a run has one"):
        resolve({"task": "@mrqa"})
    assert train.main(["--task", "@gleu"]) == 2
    assert capsys.readouterr().err == "error: unknown task group '@gleu'; did you mean '@glue'?\n"


def test_a_group_in_a_table_is_each_of_its_tasks_with_its_own_switches(tmp_path):
    from adept.tables.table_file import load_table

    file = tmp_path / "table.yaml"
    file.write_text('title: T\nfields: {task: ["@other", stsb], winogrande_options: both}\ngrid: [{method: pt}]\n')
    configs = [run.config for run in load_table(file, {}).runs()]
    assert [config.task for config in configs] == [*GROUPS["other"], "stsb"]
    assert [config.get("winogrande_options") for config in configs] == ["both", None, None, None, None]
    assert [run.config.task for run in load_table(file, {"task": "@mrqa"}).runs()] == [*GROUPS["mrqa"]]
