"""An exported folder does what its run does, read by transformers or PEFT in a process without this project."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest
import torch
from exported import model_folder, of_session, random_adapter, read_elsewhere, reading

from adept.serving.export import export
from adept.serving.export.check import known_texts, sample_texts
from adept.serving.load import load

CASES = [
    ("tiny-llama", "adept", "plain"), ("tiny-llama", "pt", "plain"), ("tiny-llama", "lora", "plain"),
    ("Llama", "adept", "plain"), ("GPT2", "adept", "plain"), ("GPT2", "dept", "plain"),
    ("tiny-codegen", "adept", "plain"), ("Gemma3Text", "adept", "plain"),
    ("tiny-t5", "adept", "plain"), ("tiny-t5", "adept", "compact"), ("tiny-t5", "pt", "plain"),
    ("tiny-llama", "adept", "peft"), ("tiny-llama", "pt", "prompt_tuning"), ("tiny-llama", "lora", "peft"),
    ("tiny-llama", "adept", "resized"), ("Llama", "pt", "resized"), ("tiny-codegen", "adept", "peft"),
    ("Gemma3Text", "adept", "peft"),
    ("tiny-t5", "adept", "peft"), ("tiny-t5", "pt", "prompt_tuning"), ("tiny-t5", "lora", "peft"),
]  # fmt: skip
"""(model, method, form). tiny-llama shares its head's table, Llama does not. Two forms are of this file: "compact" is
--as plain --compact, "resized" is --as peft with a longer prompt than the tokenizer has ids to spare.
"""

NAMES = ["-".join(case) for case in CASES]
TOLERANCE = {"plain": 5e-6, "compact": 5e-6, "peft": 1e-4, "resized": 1e-4, "prompt_tuning": 1e-4}
"""Of logits whose spread is some 10."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{case: (session, folder)}"""
    root, made = tmp_path_factory.mktemp("exports"), {}
    for name, (model, method, form) in zip(NAMES, CASES, strict=True):
        untied = {"tie_word_embeddings": False} if model == "Llama" else {}
        longer = {"prompt_len": 9} if form == "resized" else {}
        where = model_folder(model, root, **untied)
        adapter = random_adapter(root / f"{name}-adapter", where, method, **longer)
        form_given = {"compact": "plain", "resized": "peft"}.get(form, form)
        folder = export(str(adapter), root / name, form=form_given, compact=form == "compact")
        made[name] = (load(str(adapter)), folder)
    return made


@pytest.fixture(scope="module")
def found(folders):
    """{case: (session, what it makes of TEXTS, what another process makes of them with the folder)}"""
    cases = [
        reading(folder, session, "plain" if (folder / "config.json").is_file() else name.rsplit("-", 1)[1],
                337 if name.endswith("resized") else None)
        for name, (session, folder) in folders.items()
    ]  # fmt: skip
    _, read = read_elsewhere(cases)
    return {
        name: (session, of_session(session), result)
        for (name, (session, _)), result in zip(folders.items(), read, strict=True)
    }


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_answers_are_the_runs_in_a_process_without_this_project(found, name):
    session, expected, read = found[name]
    vocabulary = session.codec.table_rows[1]
    logits = torch.tensor(read["logits"])[:, :vocabulary]
    assert (logits - expected.logits).abs().max() <= TOLERANCE[name.rsplit("-", 1)[1]] * expected.logits.abs().max()
    assert read["answers"] == expected.answers
    assert expected.logits.std(0).max() > 0.1  # the texts are told apart


@pytest.mark.parametrize("name", NAMES)
def test_the_tokenizer_gives_the_runs_ids(found, name):
    """Prompt, source, cue, of short and of cut texts. In T5's shifted folder a source's ids are V larger."""
    session, expected, read = found[name]
    prompt, first = len(session.codec.prompt_ids), session.codec.table_rows[0]
    virtual, shift = name.endswith("prompt_tuning"), first if name == "tiny-t5-adept-plain" else 0
    for own, ids in zip(expected.ids, read["ids"], strict=True):
        assert ids[0 if virtual else prompt :] == [i + shift for i in own[prompt:]]
    if name.endswith("plain") or name.endswith("compact"):
        start = read["length"] - prompt if prompt else 0
        assert all(ids[:prompt] == [*range(start, start + prompt)] for ids in read["ids"])


@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_the_readme_answers_its_own_texts(found, name):
    session, _, read = found[name]
    shown = ast.literal_eval(read["printed"])
    texts = sample_texts(session, known_texts(session))[: len(shown)]
    assert [answer.strip() for answer in shown] == [answer.strip() for answer in session.answer(texts)]


@pytest.mark.parametrize("name", [name for name in NAMES if "t5" not in name.lower() and "Bart" not in name])
def test_a_chat_gives_the_same_ids_as_a_text(found, name):
    _, _, read = found[name]
    assert [read["chats"][i] for i in (0, 2)] == [read["ids"][i] for i in (0, 2)]  # the others are cut


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(("plain", "compact")) and "pt" in name])
def test_rows_of_the_prompt_are_never_generated(found, name):
    """Each has at most 1/V of the probability, and never the highest logit."""
    session, _, read = found[name]
    logits, vocabulary = torch.tensor(read["logits"]), session.codec.table_rows[1]
    extra = logits[:, vocabulary:]
    assert extra.shape[1] >= len(session.codec.prompt_ids) > 0
    assert (extra.amax(1) < logits[:, :vocabulary].amax(1)).all()
    assert (logits.softmax(1)[:, vocabulary:] <= 1 / vocabulary).all()


def test_a_tied_head_keeps_its_table(folders):
    import transformers

    session, folder = folders["tiny-llama-adept-plain"]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    head, embedding = model.lm_head.weight, model.model.embed_tokens.weight
    assert not model.config.tie_word_embeddings and len(head) == len(embedding) == 328 + 5
    assert torch.equal(head[:328], session.model.lm_head.weight)
    assert torch.equal(embedding[328:], session.prompted_embedding.prompt)
    assert not torch.allclose(embedding[:328], head[:328])


def test_a_plain_folder_survives_what_transformers_does_to_models(folders, tmp_path):
    import transformers

    _, folder = folders["tiny-llama-adept-plain"]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.tie_weights()
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in before.items())


def test_adept_is_a_lora_of_rank_r_1_m_on_the_embedding(folders):
    """f(E) = relu(E W_down + b_1) W_up + b_2 for all tokens but the hosts, whose rows are the prompt's."""
    from safetensors.torch import load_file

    session, folder = folders["tiny-llama-adept-peft"]
    weights = load_file(folder / "adapter_model.safetensors")
    name = "base_model.model.model.embed_tokens.lora_embedding_"
    hook, offset = session.prompted_embedding, session.prompted_embedding.offset
    assert {key: list(tensor.shape) for key, tensor in weights.items()} == {
        f"{name}A": [3 + 1 + 5, 328], f"{name}B": [32, 3 + 1 + 5],
    }  # fmt: skip
    change = (weights[f"{name}B"] @ weights[f"{name}A"]).T
    table = hook.base.weight
    expected = torch.relu(table @ offset.w_down + offset.b_1) @ offset.w_up + offset.b_2
    expected[320:325] = hook.prompt - table[320:325]  # the rows that the tokenizer has no token for
    torch.testing.assert_close(change, expected, atol=1e-5, rtol=1e-5)


def test_the_command_exports_and_prints_the_folder(folders, tmp_path, capsys):
    from adept.commands.main import main

    _, folder = folders["tiny-llama-lora-peft"]
    adapter = folder.with_name("tiny-llama-lora-peft-adapter")
    assert main(["export", str(adapter), str(tmp_path / "new" / "folder"), "--as", "peft"]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "new" / "folder") and "answers to 4 are the run's" in err
    settings = json.loads((tmp_path / "new" / "folder" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["peft_type"]) == (2, 32.0, "LORA")


def test_importing_the_command_imports_no_torch():
    code = "import adept.commands.export, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
