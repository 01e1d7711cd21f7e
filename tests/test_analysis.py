"""Sizes of offsets against numpy, shifted and absent offsets against the formula, first-layer attention against Section 3.4's claims."""

import json

import numpy as np
import pytest
import torch
from conftest import FAMILIES
from test_embedding import examples, explicit_inputs, filled_session

from adept import analysis, checkpoint, loop, models
from adept.config import UserError
from adept.data import load_data

TEXTS = ("the cat sat on the mat and the dog sat on the cat", "a warm and funny little film, a film about a film", "it rains")


def hook_outputs(session):
    """The embeddings of a batch [B, T, D] as the model gets them."""
    return analysis.hook_of(session)(session.codec.train_batch(examples(session))["input_ids"]).detach()


# Offsets changed at evaluation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 1, 5, 11, 12, 17])
def test_a_shift_is_the_rolled_product_of_a_and_b(make_config, k):
    session = filled_session(make_config, "llama", "dept", offset_len=12)
    plain = hook_outputs(session)
    with analysis.shift_offsets(session, k):
        shifted = hook_outputs(session)
        (ids,) = [(5,) * 20]
        tokens = torch.tensor([[*session.codec.prompt_ids, *ids]])
        hook = analysis.hook_of(session)
        offset = hook(tokens)[0, 5:] - hook.base.weight[5]
    table = (hook.offset.a @ hook.offset.b).detach()
    torch.testing.assert_close(offset[:12], torch.cat([table[k % 12 :], table[: k % 12]]))
    assert not offset[12:].any()
    assert torch.equal(shifted, plain) == (k % 12 == 0)
    assert torch.equal(hook_outputs(session), plain)
    with torch.no_grad():
        hook.offset.a.copy_(hook.offset.a.roll(-k, dims=0))
    torch.testing.assert_close(hook_outputs(session), shifted)


@pytest.mark.parametrize("method", ["dept", "adept", "dept_relu"])
def test_without_offsets_is_prompt_tuning_with_the_same_prompt(make_config, method):
    session, prompt_tuning = filled_session(make_config, "t5", method), filled_session(make_config, "t5", "pt", prompt_len=5)
    prompt_tuning.model.encoder.embed_tokens.prompt.data.copy_(session.model.encoder.embed_tokens.prompt)
    batch = session.codec.train_batch(examples(session))
    with analysis.without_offsets(session):
        assert torch.equal(session.model(**batch).loss, prompt_tuning.model(**batch).loss)
    assert session.model(**batch).loss != prompt_tuning.model(**batch).loss


@pytest.mark.parametrize("method", ["adept", "pt", "lora", "zero_shot"])
def test_only_offsets_of_positions_are_shifted(make_config, method):
    session = loop.open_session(make_config("llama", method))
    with pytest.raises(UserError, match=f"'{method}' has no offset of positions"), analysis.shift_offsets(session, 1):
        pass


@pytest.mark.parametrize("method", ["pt", "lora", "zero_shot"])
def test_what_is_not_there_cannot_be_left_out(make_config, method):
    session = loop.open_session(make_config("llama", method))
    with pytest.raises(UserError, match=f"'{method}' has no offset"), analysis.without_offsets(session):
        pass


@pytest.mark.parametrize(
    ("method", "fields", "named"),
    [
        ("adept", {"offset_shift": 1, "steps": 0, "init_from": "x"}, "--offset_shift has no effect on method 'adept'"),
        ("pt", {"without_offset": True, "steps": 0, "init_from": "x"}, "--without_offset has no effect on method 'pt'"),
        ("dept", {"offset_shift": 1, "init_from": "x"}, "--steps 0"),
        ("dept", {"offset_shift": 1, "steps": 0}, "--init_from"),
        ("adept", {"without_offset": True, "init_from": "x"}, "--steps 0"),
        ("dept", {"offset_shift": -1, "steps": 0, "init_from": "x"}, ">= 0"),
    ],
)
def test_they_are_for_trained_adapters_at_evaluation(make_config, method, fields, named):
    with pytest.raises(UserError, match=named) as caught:
        make_config("t5", method, **fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "field", "changed"),
    [
        ("dept", {"offset_shift": 7}, lambda session: analysis.shift_offsets(session, 7)),
        ("dept", {"without_offset": True}, analysis.without_offsets),
        ("adept", {"without_offset": True}, analysis.without_offsets),
    ],
)
def test_a_run_evaluates_a_trained_adapter_so_changed(make_config, tmp_path, method, field, changed):
    trained = make_config("t5", method, prompt_lr=0.3, offset_lr=0.3)
    loop.run(trained)
    where = {"results_dir": str(tmp_path / "results")}
    record = loop.run(make_config("t5", method, steps=0, init_from=trained.run_id, **field))
    assert record["run_id"] != trained.run_id
    original, again = checkpoint.load(trained.run_id, **where), checkpoint.load(record["run_id"], **where)
    assert all(torch.equal(p, again.trainables[name]) for name, p in original.trainables.items())
    assert not torch.equal(hook_outputs(original), hook_outputs(again))
    with changed(original):
        assert torch.equal(hook_outputs(original), hook_outputs(again))
        assert loop.evaluate(original, original.codec.encode(load_data(original.task, trained).test))[0] == record["test"]


def test_folding_without_the_offset_leaves_it_out(make_config):
    session = filled_session(make_config, "llama", "adept")
    hook = analysis.hook_of(session)
    hook.use_offset = False
    plain = hook_outputs(session)
    hook.fold()
    assert torch.equal(hook_outputs(session), plain)


# Sizes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["t5", "llama"])
@pytest.mark.parametrize("method", ["pt", "dept", "adept", "dept_relu"])
def test_statistics_equal_numpy_on_the_explicit_formula(make_config, family, method):
    fields = {"offset_len": 12, "offset_alpha": 8} if method == "dept" else {}
    session = filled_session(make_config, family, method, eval_batch_size=3, **fields)
    session.model.double()
    rows = examples(session, "cola") + examples(session)
    found = analysis.offset_statistics(session, rows)

    hook, longest, pad_id = analysis.hook_of(session), session.codec.max_source_len, session.codec.tokenizer.pad_token_id
    real, everything = {"embeddings": [], "offset": []}, {"embeddings": [], "offset": []}
    for example in rows:
        padded = [*example.source_ids, *[pad_id] * (longest - len(example.source_ids))]
        embeds = hook.base.weight[torch.tensor(padded)].detach().numpy()
        offset = explicit_inputs(session, padded)[len(session.codec.prompt_ids) :].detach().numpy() - embeds
        for name, vectors in (("embeddings", embeds), ("offset", offset)):
            real[name].append(vectors[: len(example.source_ids)])
            everything[name].append(vectors)

    assert found["tokens"] == sum(len(e.source_ids) for e in rows)
    assert found["released"]["positions"] == longest * len(rows)
    for name in ("embeddings", "offset"):
        if method == "pt" and name == "offset":
            assert name not in found and name not in found["released"]
            continue
        vectors, means = np.concatenate(real[name]), np.abs(np.concatenate(everything[name])).mean(0)
        norms = np.linalg.norm(vectors, axis=1)
        histogram = found[name].pop("norms")
        assert found[name] == pytest.approx({"mean": np.abs(vectors).mean(), "variance": np.abs(vectors).var()}, rel=1e-7)
        assert found["released"][name] == pytest.approx({"mean": means.mean(), "std": means.std()}, rel=1e-7)
        assert histogram["counts"] == np.histogram(norms, histogram["edges"])[0].tolist()
        assert sum(histogram["counts"]) == found["tokens"] and len(histogram["edges"]) == 41
        assert histogram["edges"][-1] / 2 <= norms.max() < histogram["edges"][-1]


@pytest.mark.parametrize("method", ["lora", "zero_shot"])
def test_methods_without_a_hook_have_embeddings_of_the_same_size(make_config, method):
    bare, prompted = loop.open_session(make_config("t5", method)), filled_session(make_config, "t5", "pt")
    found, expected = (analysis.offset_statistics(session, examples(session)) for session in (bare, prompted))
    assert found["embeddings"] == expected["embeddings"]
    assert found["released"]["embeddings"] == pytest.approx(expected["released"]["embeddings"])
    assert "offset" not in found


def test_dropout_is_off_and_the_mode_stays(make_config):
    session = filled_session(make_config, "t5", "adept", bottleneck_dropout=0.5)
    expected = analysis.offset_statistics(session, examples(session))
    session.model.train()
    assert analysis.offset_statistics(session, examples(session)) == expected
    assert session.model.training


def test_a_run_records_them_over_its_training_set(make_config, tmp_path):
    config = make_config("t5", "adept", measure_offsets=True, offset_lr=0.1)
    record = loop.run(config)
    session = checkpoint.load(record["run_id"], results_dir=str(tmp_path / "results"))
    train = session.codec.encode(load_data(session.task, config).train)
    assert record["offsets"] == analysis.offset_statistics(session, train)
    assert record["offsets"]["offset"]["mean"] > 0
    plain = make_config("t5", "adept", offset_lr=0.1)
    assert plain.run_id != config.run_id and "offsets" not in loop.run(plain)


# First-layer attention --------------------------------------------------------------------------------------------------


def test_attention_of_t5_is_equation_5_with_its_position_bias(make_config):
    session = filled_session(make_config, "t5", "adept")
    (found,) = analysis.attention_patterns(session, TEXTS[:1])
    (example,) = session.codec.encode([loop.Example("0", TEXTS[0], "", ())])
    block = session.model.encoder.block[0].layer[0]
    x = block.layer_norm(explicit_inputs(session, example.source_ids))  # [T, D]
    length, heads = len(x), block.SelfAttention.n_heads
    q, k = (projection(x).view(length, heads, -1).transpose(0, 1) for projection in (block.SelfAttention.q, block.SelfAttention.k))
    scores = torch.softmax(q @ k.transpose(1, 2) + block.SelfAttention.compute_bias(length, length)[0], dim=-1)  # [H, T, T]
    content = scores[:, 5:, 5:]
    torch.testing.assert_close(found.prompt, scores[:, 5:, :5], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.relative, content / content.sum(-1, keepdim=True), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("method", "changes", "moves"),
    [("pt", False, False), ("dept", True, True), ("adept", True, False), ("dept_relu", True, False)],
)
def test_who_changes_the_relative_attention_and_whose_depends_on_the_place(make_config, family, method, changes, moves):
    """Eq. 6: PT does not; Eq. 7, 8: ADePT and DePT do; Section 3.2: only DePT's moves with meaningless tokens before the text."""
    session = filled_session(make_config, family, method)
    implementation = session.model.config._attn_implementation
    found = analysis.measure(session, TEXTS)
    assert session.model.config._attn_implementation == implementation
    for name, expected in (("change", changes), ("moved", moves)):
        assert found[name]["undefined"] == 0
        if expected:
            assert min(found[name]["heads"]) > 1e-3
        else:
            assert found[name]["max"] < 1e-5
    assert 0 < found["prompt"]["min"] < found["prompt"]["max"] < 1
    assert min(found["prompt"]["spreads"]) > 1e-4  # the coefficient of Eq. 6's "constant" bias is not constant
    if method != "pt":
        assert (found["offset_moved"] > 0.1) == moves


@pytest.mark.parametrize("family", FAMILIES)
def test_the_frozen_models_attention_knows_no_absolute_place(make_config, family):
    found = analysis.measure(filled_session(make_config, family, "adept"), TEXTS, adapted=False)
    assert found["change"]["max"] == 0
    assert found["moved"]["max"] < 1e-5
    assert "prompt" not in found and "offset_size" not in found


@pytest.mark.parametrize(("method", "by_token"), [("adept", True), ("dept", False)])
def test_a_token_has_one_offset_with_adept_and_many_with_dept(make_config, method, by_token):
    session = filled_session(make_config, "llama", method)
    encoded = session.codec.encode([loop.Example("0", text, "", ()) for text in TEXTS])
    offsets: dict[int, list] = {}
    for example, attention in zip(encoded, analysis.attention_patterns(session, TEXTS), strict=True):
        for token, offset in zip(example.source_ids, attention.offset, strict=True):
            offsets.setdefault(token, []).append(offset)
    repeated = [torch.stack(rows) for rows in offsets.values() if len(rows) > 2]
    assert len(repeated) > 3
    for rows in repeated:
        apart = (rows - rows[:1]).norm(dim=1).max() / rows.norm(dim=1).max()
        assert apart < 1e-6 if by_token else apart > 0.1


def test_where_the_prompt_takes_all_attention_nothing_is_compared(make_config, monkeypatch):
    session = filled_session(make_config, "llama", "pt")
    own = models.first_layer_attention

    def overwhelmed(model, ids):
        weights = own(model, ids)
        if ids[0, 0] in session.codec.prompt_ids:
            weights[:, :, -1, 9:] *= 1e-35
        return weights

    monkeypatch.setattr(models, "first_layer_attention", overwhelmed)
    found = analysis.measure(session, TEXTS)
    assert found["change"]["undefined"] == 4 * len(TEXTS)  # one query of each head
    assert found["change"]["max"] < 1e-5


def test_attention_needs_a_method_of_the_input_embedding(make_config):
    with pytest.raises(UserError, match="'lora' does not act in the input embedding"):
        analysis.attention_patterns(loop.open_session(make_config("llama", "lora")), TEXTS)


# The command ------------------------------------------------------------------------------------------------------------


def test_the_command_writes_table_and_figure(make_config, data_dir, tmp_path, capsys):
    runs = [loop.run(make_config("llama", method, offset_lr=0.3)) for method in ("dept", "adept")]
    places = ["--results_dir", str(tmp_path / "results"), "--data_dir", data_dir, "--device", "cpu"]
    assert analysis.main(["--adapters", *(run["run_id"] for run in runs), "--rows", "3", *places]) == 0
    folder = tmp_path / "results" / "tables"
    found, text = json.loads((folder / "theory.json").read_text()), (folder / "theory.md").read_text(encoding="utf-8")
    assert text == analysis.markdown(found) and text in capsys.readouterr().out
    assert [row["method"] for row in found["rows"]] == ["frozen model", "dept", "adept", "frozen model", "pt", "dept", "adept"]
    assert found["rows"][1]["from"] == runs[0]["run_id"] and found["rows"][4]["from"] == "random"
    assert text.count("| random-t5 |") == 4
    assert (folder / "theory.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(("words", "named"), [(["--rows", "0"], "--rows"), (["--adapters", "nothing"], "no adapter 'nothing'")])
def test_a_mistake_is_one_line(words, named, tmp_path, capsys):
    assert analysis.main([*words, "--results_dir", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and named in err and err.count("\n") == 1


def test_the_random_t5_is_the_same_every_time(make_config, tmp_path):
    tokenizer = loop.open_session(make_config("llama", "zero_shot")).codec.tokenizer
    for name in ("one", "two"):
        models.random_t5(tmp_path / name, tokenizer)
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (tmp_path / "two" / "model.safetensors").read_bytes()
