"""First-layer attention against Eq. 5 and against the claims of Section 3.4."""

import pytest
import torch
from conftest import FAMILIES
from explicit_formulas import examples, explicit_inputs, filled_session

from adept.analysis.attention import first_layer_patterns, measure_attention, without_offset
from adept.base.errors import UserError
from adept.data.example import Example
from adept.models.loading import first_layer_attention
from adept.training.session import open_session

TEXTS = (
    "the cat sat on the mat and the dog sat on the cat",
    "a warm and funny little film, a film about a film",
    "it rains",
)


@pytest.mark.parametrize("method", ["dept", "adept", "dept_relu"])
def test_without_offsets_is_prompt_tuning_with_the_same_prompt(make_config, method):
    session, prompt_tuning = (
        filled_session(make_config, "t5", method),
        filled_session(make_config, "t5", "pt", prompt_len=5),
    )
    prompt_tuning.model.encoder.embed_tokens.prompt.data.copy_(session.model.encoder.embed_tokens.prompt)
    batch = session.codec.train_batch(examples(session))
    with without_offset(session):
        assert torch.equal(session.model(**batch).loss, prompt_tuning.model(**batch).loss)
    assert session.model(**batch).loss != prompt_tuning.model(**batch).loss


@pytest.mark.parametrize("method", ["pt", "lora", "zero_shot"])
def test_what_is_not_there_cannot_be_left_out(make_config, method):
    session = open_session(make_config("llama", method))
    with pytest.raises(UserError, match=f"'{method}' has no offset"), without_offset(session):
        pass


def test_attention_of_t5_is_equation_5_with_its_position_bias(make_config):
    session = filled_session(make_config, "t5", "adept")
    (found,) = first_layer_patterns(session, TEXTS[:1])
    (example,) = session.codec.encode([Example("0", TEXTS[0], "", ())])
    block = session.model.encoder.block[0].layer[0]
    x = block.layer_norm(explicit_inputs(session, example.source_ids))  # [T, D]
    length, heads = len(x), block.SelfAttention.n_heads
    q, k = (
        projection(x).view(length, heads, -1).transpose(0, 1)
        for projection in (block.SelfAttention.q, block.SelfAttention.k)
    )
    scores = torch.softmax(
        q @ k.transpose(1, 2) + block.SelfAttention.compute_bias(length, length)[0], dim=-1
    )  # [H, T, T]
    content = scores[:, 5:, 5:]
    torch.testing.assert_close(found.prompt, scores[:, 5:, :5], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.relative, content / content.sum(-1, keepdim=True), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("method", "changes", "moves"),
    [("pt", False, False), ("dept", True, True), ("adept", True, False), ("dept_relu", True, False)],
)
def test_who_changes_the_relative_attention_and_whose_depends_on_the_place(make_config, family, method, changes, moves):
    """Eq. 6: PT does not change it; Eq. 7, 8: ADePT and DePT do.

    Section 3.2: only DePT's depends on meaningless tokens before the text.
    """
    session = filled_session(make_config, family, method)
    implementation = session.model.config._attn_implementation
    found = measure_attention(session, TEXTS)
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
    found = measure_attention(filled_session(make_config, family, "adept"), TEXTS, adapted=False)
    assert found["change"]["max"] == 0
    assert found["moved"]["max"] < 1e-5
    assert "prompt" not in found and "offset_size" not in found


@pytest.mark.parametrize(("method", "by_token"), [("adept", True), ("dept", False)])
def test_a_token_has_one_offset_with_adept_and_many_with_dept(make_config, method, by_token):
    session = filled_session(make_config, "llama", method)
    encoded = session.codec.encode([Example("0", text, "", ()) for text in TEXTS])
    offsets: dict[int, list] = {}
    for example, attention in zip(encoded, first_layer_patterns(session, TEXTS), strict=True):
        for token, offset in zip(example.source_ids, attention.offset, strict=True):
            offsets.setdefault(token, []).append(offset)
    repeated = [torch.stack(rows) for rows in offsets.values() if len(rows) > 2]
    assert len(repeated) > 3
    for rows in repeated:
        apart = (rows - rows[:1]).norm(dim=1).max() / rows.norm(dim=1).max()
        assert apart < 1e-6 if by_token else apart > 0.1


def test_where_the_prompt_takes_all_attention_nothing_is_compared(make_config, monkeypatch):
    session = filled_session(make_config, "llama", "pt")

    def overwhelmed(model, ids):
        weights = first_layer_attention(model, ids)
        if ids[0, 0] in session.codec.prompt_ids:
            weights[:, :, -1, 9:] *= 1e-35
        return weights

    monkeypatch.setattr("adept.analysis.attention.first_layer_attention", overwhelmed)
    found = measure_attention(session, TEXTS)
    assert found["change"]["undefined"] == 4 * len(TEXTS)  # one query of each head
    assert found["change"]["max"] < 1e-5


def test_attention_needs_a_method_of_the_input_embedding(make_config):
    with pytest.raises(UserError, match="'lora' does not act in the input embedding"):
        first_layer_patterns(open_session(make_config("llama", "lora")), TEXTS)
