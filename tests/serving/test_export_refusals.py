"""What cannot be exported is one line, and a folder that would do something else is never there."""

import json

import pytest
import tiny_families
import torch
from exported import model_folder, random_adapter

from adept.base.errors import UserError
from adept.models.plain import plain_model
from adept.serving.export import export, tokenizer


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """adapter(model, method, **fields): the folder of a random adapter, made once."""
    root, made = tmp_path_factory.mktemp("adapters"), {}

    def make(model, method, **fields):
        key = (model, method, *fields.items())
        if key not in made:
            made[key] = random_adapter(root / str(len(made)), model_folder(model, root), method, **fields)
        return str(made[key])

    return make


@pytest.mark.parametrize(
    ("model", "method", "form", "line"),
    [
        ("tiny-llama", "dept", "plain", "whose positions have no trained table"),
        ("tiny-t5", "dept", "plain", "whose positions have no trained table"),
        ("GPT2", "dept", "peft", "no low-rank function of the token alone"),
        ("tiny-llama", "full", "peft", "trains weights of the model itself, which is no adapter: --as plain"),
        ("tiny-t5", "pt_table", "peft", "trains weights of the model itself"),
        ("tiny-llama", "zero_shot", "peft", "trains no adapter that PEFT has: --as plain"),
        ("tiny-llama", "adept", "prompt_tuning", "holds a prompt and nothing else, as method pt trains it"),
        ("tiny-llama", "lora", "prompt_tuning", "holds a prompt and nothing else"),
        ("Bart", "adept", "plain", "has no plain form with a prompt or an offset"),
    ],
)
def test_what_a_form_cannot_hold_is_one_line(adapter, tmp_path, model, method, form, line):
    with pytest.raises(UserError, match=line):
        export(adapter(model, method), tmp_path / "out", form=form)
    assert not [*tmp_path.iterdir()]


def test_a_prompt_longer_than_t5s_free_ids_is_refused_by_peft(adapter, tmp_path):
    with pytest.raises(UserError, match="8 ids of the model's tokenizer are free, fewer than the 9 rows"):
        export(adapter("tiny-t5", "pt", prompt_len=9), tmp_path / "out", form="peft")


def test_what_a_method_has_put_into_the_blocks_is_not_left_out():
    model = tiny_families.build("Llama")
    model.model.layers[0].mlp.down_proj.bias = torch.nn.Parameter(torch.ones(32))
    with pytest.raises(UserError, match=r"has no place for what this method has put into it .*down_proj.bias"):
        plain_model(model, torch.zeros(0, 1))


def test_compact_is_for_two_tables(adapter, tmp_path):
    for model, method in (("tiny-llama", "adept"), ("tiny-t5", "pt")):
        with pytest.raises(UserError, match="--compact gives encoder and decoder a table each"):
            export(adapter(model, method), tmp_path / "out", compact=True)
    with pytest.raises(UserError, match="--compact is for --as plain"):
        export(adapter("tiny-t5", "adept"), tmp_path / "out", compact=True, form="peft")


def test_nothing_that_is_there_is_lost(adapter, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "link").symlink_to(tmp_path / "full")
    for name in ("full", "file", "link"):
        with pytest.raises(UserError, match="is there and not empty: nothing is written"):
            export(adapter("tiny-llama", "zero_shot"), tmp_path / name)
    with pytest.raises(UserError, match=r"cannot write .*; name a folder where there is room"):
        export(adapter("tiny-llama", "zero_shot"), tmp_path / "file" / "below")
    assert (tmp_path / "full" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert export(adapter("tiny-llama", "zero_shot"), tmp_path / "empty") == tmp_path / "empty"
    assert (tmp_path / "empty" / "config.json").is_file()


# Traps: each of these folders would load without a warning and answer otherwise ---------------------------------------


def spoil(monkeypatch, change):
    """Exports write the tokenizer's settings as `change` makes them."""
    write = tokenizer.write_settings
    monkeypatch.setattr(tokenizer, "write_settings", lambda folder, settings: write(folder, change(settings)))


@pytest.mark.parametrize(
    ("model", "change", "line"),
    [
        ("tiny-t5", {"tokenizer_class": "T5Tokenizer"}, "it cannot be read|its tokenizer gives"),
        ("tiny-llama", {"padding_side": "right"}, "its logits differ|it answers"),
        ("tiny-llama", {"model_max_length": 10**6}, "its tokenizer gives"),
        ("tiny-llama", {"truncation_side": "left"}, "its tokenizer gives"),
    ],
)
def test_a_tokenizer_that_would_do_something_else_is_found(adapter, tmp_path, monkeypatch, model, change, line):
    spoil(monkeypatch, lambda settings: settings | change)
    with pytest.raises(UserError, match=line):
        export(adapter(model, "adept"), tmp_path / "out")
    assert not [*tmp_path.iterdir()]


def test_a_head_tied_to_the_table_is_found(adapter, tmp_path, monkeypatch):
    """The head would see prompt and offset."""
    monkeypatch.setattr("adept.models.plain.with_mean_rows", lambda *_: torch.zeros(333, 32))
    with pytest.raises(UserError, match="its logits differ"):
        export(adapter("tiny-llama", "adept"), tmp_path / "out")
    assert not [*tmp_path.iterdir()]


def test_a_chat_template_that_joins_other_tokens_is_left_out(adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", lambda *_: "{{ messages[-1]['content'] }}")
    folder = export(adapter("tiny-llama", "adept"), tmp_path / "out")
    assert "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text())
    assert "There is no chat template" in (folder / "README.md").read_text()


def test_without_a_cue_the_tokenizer_leaves_the_question_open(adapter, tmp_path):
    import transformers

    with_cue, without = (export(adapter("tiny-llama", "adept"), tmp_path / str(cue), cue=cue) for cue in (True, False))
    first, second = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (with_cue, without))
    assert first("x").input_ids == second("x\nanswer:").input_ids != second("x").input_ids


def test_data_that_hold_the_tokens_of_the_prompt_are_refused(tmp_path, model_folders, data_dir):
    import transformers

    folder = tmp_path / "model"
    transformers.AutoModelForCausalLM.from_pretrained(model_folders["llama"]).save_pretrained(folder)
    named = transformers.AutoTokenizer.from_pretrained(model_folders["llama"])
    named.add_special_tokens({"additional_special_tokens": ["<kept_1>", *(f"<kept_{i}>" for i in range(2, 9))]})
    named.save_pretrained(folder)
    data = tmp_path / "data" / "rte"
    data.mkdir(parents=True)
    row = {"sentence1": "A cat <kept_3> sat.", "sentence2": "It sat.", "label": 0}
    for split in ("train", "validation"):
        (data / f"{split}.jsonl").write_text((json.dumps(row) + "\n") * 4)
    adapter = random_adapter(tmp_path / "adapter", str(folder), "adept", data_dir=str(data.parent))
    with pytest.raises(UserError, match="the data hold the token <kept_3>, whose row the prompt would take"):
        export(str(adapter), tmp_path / "out", form="peft")
    assert export(str(adapter), tmp_path / "out").is_dir()
