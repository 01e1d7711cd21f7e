"""Adapters of PEFT's are read: by load() with a task, and by --init_from."""

import json

import peft
import pytest
import torch
from exported import TEXTS, random_adapter

from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.models.loading import load_model
from adept.runs.adapter import read_weights
from adept.serving.export import export
from adept.serving.load import load
from adept.training.loop import run

GIVEN = {"task": "rte", "data_dir": "fixtures", "device": "cpu", "max_source_len": 64, "max_new_tokens": 6}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """{(model, method): (our adapter's folder, the same as PEFT has it)}"""
    root, made = tmp_path_factory.mktemp("pairs"), {}
    for model in ("tiny-llama", "tiny-t5"):
        for method, form in (("lora", "peft"), ("pt", "prompt_tuning")):
            ours = random_adapter(root / f"{model}-{method}", model, method)
            made[model, method] = ours, export(str(ours), root / f"{model}-{form}", form=form)
    return made


@pytest.mark.parametrize("key", [(model, method) for model in ("tiny-llama", "tiny-t5") for method in ("lora", "pt")])
def test_a_run_comes_back_from_peft_as_it_was(pairs, key):
    ours, theirs = pairs[key]
    before = load(str(ours), scoring="likelihood")
    after = load(str(theirs), scoring="likelihood", **GIVEN)  # the base model is the one that the folder names
    assert after.config.method == key[1]
    assert after.label_probabilities(TEXTS) == before.label_probabilities(TEXTS)
    assert after.answer(TEXTS) == before.answer(TEXTS)


def test_init_from_takes_the_tensors_of_a_peft_folder(pairs, tmp_path):
    for (model, method), (ours, theirs) in pairs.items():
        size = {"rank": 2} if method == "lora" else {"prompt_len": 5}
        flags = {**GIVEN, "model": model, "method": method, "steps": 0, "eval_rows": 2, **size}
        record = run(resolve({**flags, "results_dir": str(tmp_path), "init_from": str(theirs)}))
        stored = read_weights(tmp_path / "runs" / record["run_id"])
        assert all(torch.equal(stored[name], tensor) for name, tensor in read_weights(ours).items())


def foreign(folder, **settings):
    """The folder of a LoRA that PEFT has made for the tiny Llama, with random weights, and the model with it."""
    model, _ = load_model("tiny-llama")
    torch.manual_seed(0)
    adapted = peft.get_peft_model(model, peft.LoraConfig(**{"target_modules": ["q_proj"], "r": 4, **settings}))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.3)
    adapted.save_pretrained(folder)
    return adapted.eval()


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["down_proj", "gate_proj"]},
        {"target_modules": ["q_proj", "o_proj"], "use_rslora": True, "lora_alpha": 3},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 7}},
        {"use_dora": True},
    ],
)
def test_load_takes_a_lora_of_whatever_modules_and_scale(tmp_path, settings):
    theirs = foreign(tmp_path, **settings)
    session = load(str(tmp_path), model="tiny-llama", **GIVEN)
    batch = session.codec.source_batch(session.encode(TEXTS))
    with torch.no_grad():
        assert torch.equal(session.model(**batch).logits, theirs(**batch).logits)
        plain, _ = load_model("tiny-llama")
        assert not torch.allclose(session.model(**batch).logits, plain(**batch).logits)


def refused_start(folder, tmp_path, **flags):
    given = {**GIVEN, "model": "tiny-llama", "method": "lora", "steps": 0, "results_dir": str(tmp_path / "results")}
    with pytest.raises(UserError) as error:
        run(resolve({**given, "init_from": str(folder), **flags}))
    return str(error.value)


def test_a_lora_of_another_scale_or_place_does_not_start_a_run(tmp_path):
    all_projections = ["q_proj", "k_proj", "v_proj"]
    foreign(tmp_path / "scale", lora_alpha=8, target_modules=all_projections)
    line = refused_start(tmp_path / "scale", tmp_path, rank=4)
    assert "it has lora_alpha 8, this run 32.0: --lora_alpha 8" in line
    foreign(tmp_path / "rs", use_rslora=True, lora_alpha=32, target_modules=all_projections)
    assert "it has use_rslora True, this run none" in refused_start(tmp_path / "rs", tmp_path, rank=4)
    foreign(tmp_path / "place", lora_alpha=32)
    assert "does not fit: it lacks" in refused_start(tmp_path / "place", tmp_path, rank=4)


def change(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_cannot_be_read_is_one_line(pairs, tmp_path):
    foreign(tmp_path)
    with pytest.raises(UserError, match="does not say what its task is"):
        load(str(tmp_path))
    with pytest.raises(UserError, match="does not fit tiny-t5"):
        load(str(tmp_path), model="tiny-t5", **GIVEN)
    change(tmp_path, peft_type="IA3")
    with pytest.raises(UserError, match="it is of PEFT's type IA3; PROMPT_TUNING and LORA are read"):
        load(str(tmp_path), model="tiny-llama", **GIVEN)
    change(tmp_path, peft_type="PROMPT_TUNING", num_transformer_submodules=2)
    with pytest.raises(UserError, match="rows for the decoder, too"):
        load(str(tmp_path), model="tiny-llama", **GIVEN)
    (tmp_path / "adapter_config.json").write_text("[1")
    with pytest.raises(UserError, match=r"adapter_config.json cannot be read"):
        load(str(tmp_path), model="tiny-llama", **GIVEN)


def test_a_prompt_in_the_embedding_is_not_taken_for_a_lora(pairs, tmp_path):
    ours, _ = pairs["tiny-llama", "pt"]
    folder = export(str(ours), tmp_path / "out", form="peft")
    with pytest.raises(UserError, match="adapts the input embedding"):
        load(str(folder), **GIVEN)


def test_a_base_of_another_name_is_said(tmp_path, capsys):
    foreign(tmp_path)
    change(tmp_path, base_model_name_or_path="someone/other")
    load(str(tmp_path), model="tiny-llama", **GIVEN)
    assert "names the base model someone/other; whether tiny-llama has its weights cannot be told" in (
        capsys.readouterr().err
    )


def test_a_damaged_lora_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    foreign(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    first = next(iter(weights))
    save_file({**weights, first: weights[first] * float("nan")}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match="is damaged"):
        load(str(tmp_path), model="tiny-llama", **GIVEN)
    del weights[first]
    save_file(weights, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match="does not fit: it lacks"):
        load(str(tmp_path), model="tiny-llama", **GIVEN)


def test_depts_released_form_loads_with_its_sizes(tmp_path):
    """As DePT's authors have it: adapter_model.bin, PROMPT_TUNING_LORA, scaled by alpha / sqrt(r)."""
    ours = random_adapter(tmp_path / "ours", "tiny-t5", "dept", offset_alpha=8.0)
    weights = {name.rsplit("embed_tokens.", 1)[-1]: tensor for name, tensor in read_weights(ours).items()}
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    names = {"prompt": "prompt_embeddings", "offset.a": "prompt_encoder.lora_embedding_A",
             "offset.b": "prompt_encoder.lora_embedding_B"}  # fmt: skip
    torch.save({names[name]: tensor for name, tensor in weights.items()}, theirs / "adapter_model.bin")
    sizes = {"num_virtual_tokens": 5, "r": 3, "lora_alpha": 8, "max_length": 40}
    described = {"peft_type": "PROMPT_TUNING_LORA", "base_model_name_or_path": "tiny-t5", **sizes}
    (theirs / "adapter_config.json").write_text(json.dumps(described))
    before = load(str(ours), scoring="likelihood", max_source_len=40)
    after = load(str(theirs), scoring="likelihood", **{**GIVEN, "max_source_len": 40})
    assert after.label_probabilities(TEXTS) == before.label_probabilities(TEXTS)
