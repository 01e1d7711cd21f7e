"""Tokenizers of several kinds put prompt and cue around a text, read by transformers alone."""

import json

import pytest
import small_tokenizers
import transformers
from exported import TEXTS, model_folder, random_adapter

from adept.base.errors import UserError
from adept.serving.export import export, tokenizer
from adept.serving.load import load


def ids_of(session, texts):
    examples = session.encode(texts)
    return [[*session.codec.prompt_ids, *example.source_ids] for example in examples]


@pytest.mark.parametrize(
    "made",
    [
        small_tokenizers.sentence_pieces(adds="<s> $A"),
        small_tokenizers.sentence_pieces(adds="<s> $A </s>", normalizer=small_tokenizers.ONE_BLANK),
        small_tokenizers.byte_level(adds="<s> $A"),
        small_tokenizers.byte_level(adds="$A </s>", add_prefix_space=True),
    ],
    ids=["pieces", "pieces with an end", "bytes with a start", "bytes with an end"],
)
def test_a_decoder_only_models_tokenizer(made, tmp_path):
    """A token at the text's beginning stays behind the prompt, one at its end gives way to the cue."""
    model = model_folder("Llama", tmp_path, made, vocab_size=450)
    adapter = random_adapter(tmp_path / "adapter", model, "adept")
    folder, session = export(str(adapter), tmp_path / "out"), load(str(adapter))
    read = transformers.AutoTokenizer.from_pretrained(folder)
    assert read(TEXTS, truncation=True).input_ids == ids_of(session, TEXTS)
    assert len(read) == 455 and read.padding_side == "left"
    if read.chat_template:
        chat = read.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
        assert read(chat, add_special_tokens=False).input_ids == read("x").input_ids
    else:
        assert "no chat template" in (folder / "README.md").read_text()


def test_an_exported_folder_can_be_trained_and_exported_again(tmp_path):
    adapter = random_adapter(tmp_path / "adapter", model_folder("Llama", tmp_path), "pt")
    first = export(str(adapter), tmp_path / "first", cue=False)
    again = random_adapter(tmp_path / "again", str(first), "pt")
    second = export(str(again), tmp_path / "second")
    read = transformers.AutoTokenizer.from_pretrained(second)
    assert read(TEXTS, truncation=True).input_ids == ids_of(load(str(again)), TEXTS)
    assert [*range(333, 338), *range(328, 333)] == read("x").input_ids[:10]


@pytest.fixture(scope="module")
def t5(t5_tokenizer, tmp_path_factory):
    """The folder of an adapter on a tiny T5 with the real vocabulary."""
    root = tmp_path_factory.mktemp("t5")
    model = model_folder("T5", root, t5_tokenizer, vocab_size=32128)
    return random_adapter(root / "adapter", model, "adept", prompt_len=60)


def test_t5s_own_tokenizer_numbers_sources_behind_answers(t5, tmp_path):
    """Texts get ids from V on; ids below V, which the model generates, decode as before."""
    folder, session = export(str(t5), tmp_path / "out"), load(str(t5))
    read, own = transformers.AutoTokenizer.from_pretrained(folder), session.codec.tokenizer
    rows = 32128
    for ids, expected in zip(read(TEXTS, truncation=True).input_ids, ids_of(session, TEXTS), strict=True):
        assert ids == [i + rows for i in expected]
    assert len(read) == 2 * rows + 60
    for text in ("entailment", "not_duplicate", "Zürich, 1,234 mm²", "<extra_id_3> x"):
        ids = own(text).input_ids
        assert read.decode(ids, skip_special_tokens=True) == own.decode(ids, skip_special_tokens=True)


def test_t5s_own_class_would_drop_the_prompt(t5, tmp_path, monkeypatch):
    write = tokenizer.write_settings
    named = {"tokenizer_class": "T5Tokenizer"}
    monkeypatch.setattr(tokenizer, "write_settings", lambda folder, settings: write(folder, settings | named))
    with pytest.raises(UserError, match="its tokenizer gives"):
        export(str(t5), tmp_path / "out", compact=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_t5s_sentinels_are_hosts_where_rows_run_out(t5, tmp_path):
    """28 rows beyond the tokenizer, then its <extra_id_*>: 60 rows of a prompt fit into the base as it is."""
    folder = export(str(t5), tmp_path / "out", form="peft")
    read = transformers.AutoTokenizer.from_pretrained(folder)
    assert read("x").input_ids[:60] == [*range(32100, 32128), *range(32000, 32032)]
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert (settings["r"], settings["target_modules"]) == (3 + 1 + 60, ["encoder.embed_tokens"])
