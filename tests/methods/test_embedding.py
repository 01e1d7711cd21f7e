"""The hook against the paper's formulas written out, on all three families."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import FAMILIES
from explicit_formulas import assert_generation_is_teacher_forcing, examples, explicit_loss, filled_session
from torch import nn

from adept.data.example import IGNORED
from adept.methods.embedding import PromptedEmbedding, prompt_from_ids, prompt_from_vocab, random_prompt
from adept.methods.offsets import PositionOffset, TokenOffset
from adept.models.tiny import make_model
from adept.training.session import open_session

PROMPT_METHODS = ("pt", "dept", "adept", "dept_relu")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_loss_equals_the_explicit_formula(make_config, family, method):
    session = filled_session(
        make_config, family, method, **({"offset_len": 12, "offset_alpha": 8} if method == "dept" else {})
    )
    batch = examples(session)
    loss = session.model(**session.codec.train_batch(batch)).loss

    torch.testing.assert_close(loss, explicit_loss(session, batch), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "codegen"])
@pytest.mark.parametrize("method", [*PROMPT_METHODS, "lora", "full"])
def test_cached_generation_equals_teacher_forcing(make_config, family, method):
    """Generated tokens get the offset that training gives them; left padding changes nothing."""
    session = filled_session(make_config, family, method, **({"offset_len": 60} if method == "dept" else {}))
    assert_generation_is_teacher_forcing(session, examples(session))


@pytest.mark.parametrize("method", [*PROMPT_METHODS, "lora"])
def test_t5_generation_equals_teacher_forcing(make_config, method):
    session = filled_session(make_config, "t5", method)
    assert_generation_is_teacher_forcing(session, examples(session))


def test_decoder_of_t5_sees_the_plain_table(make_config):
    session = filled_session(make_config, "t5", "adept")
    assert session.model.decoder.embed_tokens.weight is session.model.shared.weight
    assert not isinstance(session.model.decoder.embed_tokens, PromptedEmbedding)


def test_dept_positions_count_from_the_prompt_and_go_on_while_decoding():
    torch.manual_seed(0)
    offset = PositionOffset(4, length=5, rank=2)
    nn.init.normal_(offset.b)
    table = (offset.a @ offset.b).detach()
    zero = torch.zeros(4)
    prompt = torch.tensor(
        [[False, True, True, False, False], [True, True, False, False, False]]
    )  # the first row is left padded
    out = offset(torch.zeros(2, 5, 4), prompt)
    torch.testing.assert_close(out[0], torch.stack([zero, zero, zero, table[0], table[1]]))
    torch.testing.assert_close(out[1], torch.stack([zero, zero, table[0], table[1], table[2]]))
    step = offset(torch.zeros(2, 1, 4), torch.zeros(2, 1, dtype=torch.bool))
    torch.testing.assert_close(step[:, 0], torch.stack([table[2], table[3]]))
    beams = offset(torch.zeros(4, 2, 4), torch.zeros(4, 2, dtype=torch.bool))  # two continuations of each row
    expected = torch.stack([torch.stack([table[3], table[4]])] * 2 + [torch.stack([table[4], zero])] * 2)
    torch.testing.assert_close(beams, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_fold_is_exact_and_leaves_the_head_alone(make_config, family):
    session = filled_session(make_config, family, "adept")
    batch = session.codec.source_batch(examples(session))
    extra = {"decoder_input_ids": torch.tensor([[0, 5, 6]] * 4)} if family == "t5" else {}
    head = session.model.get_output_embeddings().weight.clone()
    live = session.model(**batch, **extra).logits
    hook = next(m for m in session.model.modules() if isinstance(m, PromptedEmbedding))
    hook.fold()
    assert hook.offset is None
    torch.testing.assert_close(session.model(**batch, **extra).logits, live, rtol=1e-5, atol=1e-5)
    assert torch.equal(session.model.get_output_embeddings().weight, head)


def test_dept_cannot_fold():
    hook = PromptedEmbedding(nn.Embedding(9, 4), torch.zeros(2, 4), PositionOffset(4, 5, 2))
    with pytest.raises(TypeError, match="PositionOffset"):
        hook.fold()


@pytest.mark.parametrize(("init", "fan_in"), [("rank", 19), ("width", 768)])
def test_offset_starts_at_zero_with_the_bound_of_its_fan_in(init, fan_in):
    offset = TokenOffset(768, 19, init=init)
    assert not offset(torch.randn(2, 3, 768), None).any()
    largest = offset.w_down.abs().max().item()
    assert 0.99 / math.sqrt(fan_in) < largest <= 1 / math.sqrt(fan_in)


def test_bottleneck_dropout_acts_in_training_only():
    offset = TokenOffset(8, 64, dropout=0.5)
    nn.init.normal_(offset.w_up)
    x = torch.randn(1, 1, 8)
    assert not torch.equal(offset(x, None), offset(x, None))
    offset.eval()
    assert torch.equal(offset(x, None), offset(x, None))


def test_prompt_initialisers():
    torch.manual_seed(0)
    table = nn.Embedding.from_pretrained(torch.arange(20.0)[:, None].expand(20, 3))
    assert prompt_from_ids(table, 5, [4, 7])[:, 0].tolist() == [4, 7, 4, 7, 4]
    drawn = prompt_from_vocab(table, 6, 8)[:, 0].tolist()
    assert len(set(drawn)) == 6 and max(drawn) < 8
    assert len(prompt_from_vocab(table, 30, 8)) == 30
    sample = random_prompt(torch.zeros(2, 1000), 50)
    assert abs(sample.mean()) < 0.02 and abs(sample.std() - 1) < 0.02


def test_text_prompt_is_the_released_codes_sentence_with_its_eos(make_config):
    session = open_session(make_config("t5", "adept", prompt_init="text", prompt_len=40))
    ids = session.codec.tokenizer("Classify this text is postive or not:").input_ids
    assert ids[-1] == session.codec.tokenizer.eos_token_id and len(ids) < 40
    hook = session.model.encoder.embed_tokens
    torch.testing.assert_close(hook.prompt.data, hook.base.weight[torch.tensor((ids * 9)[:40])])


def test_bf16_rounds_the_sum_once(make_config):
    """Offsets are added in fp32 even under autocast, then rounded with the embedding."""
    session = filled_session(make_config, "llama", "adept", precision="bf16")
    hook = session.model.model.embed_tokens
    ids = torch.tensor([[3, 4, 5]])
    e = hook.base.weight[ids].float()
    o = hook.offset
    expected = (e + F.relu(e @ o.w_down + o.b_1) @ o.w_up + o.b_2).bfloat16()
    with session.autocast():
        assert torch.equal(hook(ids), expected)
    assert hook.prompt.dtype == torch.float32 and hook.base.weight.dtype == torch.bfloat16


def test_peft_prompt_tuning_gives_the_same_loss(make_config):
    """PT equals the PEFT library's prompt tuning on the same weights."""
    import peft

    session = filled_session(make_config, "llama", "pt", prompt_len=6)
    theirs = peft.get_peft_model(
        make_model("llama").eval(),
        peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=6, num_transformer_submodules=1),
    )
    with torch.no_grad():
        theirs.prompt_encoder["default"].embedding.weight.copy_(session.model.model.embed_tokens.prompt)
    batch = examples(session)
    rows = [[*e.source_ids, *e.target_ids] for e in batch]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    labels = torch.full_like(ids, IGNORED)
    for i, e in enumerate(batch):
        labels[i, len(e.source_ids) : len(rows[i])] = torch.tensor(e.target_ids)
    expected = theirs(input_ids=ids, attention_mask=mask, labels=labels).loss
    torch.testing.assert_close(session.model(**session.codec.train_batch(batch)).loss, expected, rtol=1e-5, atol=1e-6)
