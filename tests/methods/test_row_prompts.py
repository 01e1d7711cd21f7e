"""Prompts that depend on the row: of its source's tokens alone, whatever the batch, the padding and the answer are."""

import pytest
import torch
from conftest import FAMILIES
from explicit_formulas import examples, explicit_inputs, explicit_loss
from torch import nn

from adept.data.batches import make_batch
from adept.methods.prompt_encoders import SOURCE_RATE
from adept.methods.prompt_sources import PromptSource
from adept.methods.prompts import PT
from adept.runs.adapter import PROMPT
from adept.serving.load import load
from adept.training.evaluation import label_log_probabilities
from adept.training.loop import run
from adept.training.losses import batch_losses
from adept.training.session import open_session, open_sessions
from adept.training.stack import Stack

LENGTH = 4


class MeanPrompt(PromptSource):
    """Each row's prompt is a table plus the mean of the row's embeddings times a matrix."""

    instance = True

    def __init__(self, width: int):
        super().__init__()
        self.table = nn.Parameter(torch.randn(LENGTH, width))
        self.mix = nn.Parameter(torch.randn(width, width))

    def forward(self, embeds, is_token):
        count = is_token.sum(1, keepdim=True).clamp(min=1)  # [B, 1]
        mean = (embeds * is_token[..., None]).sum(1) / count  # [B, D]
        return self.table + (mean @ self.mix)[:, None]


@pytest.fixture
def mean_prompt(monkeypatch):
    """--method pt has a MeanPrompt in place of its table."""
    monkeypatch.setattr(PT, "make_prompt", lambda _method, embedding, _tokenizer: MeanPrompt(embedding.weight.shape[1]))
    monkeypatch.setattr(PT, "rates", SOURCE_RATE)


@pytest.fixture
def opened(filled, mean_prompt):
    """opened(family, **fields): a session with a MeanPrompt on a tiny T5, Llama or GPT2."""
    return lambda family, **fields: filled(family, "pt", prompt_len=LENGTH, **fields)


def explicit_prompt(session, source_ids):
    """[m, D] of one row's source."""
    hook = session.prompted_embedding
    mean = sum(hook.base.weight[token] for token in source_ids) / len(source_ids)
    return hook.source.table + mean @ hook.source.mix


@pytest.mark.parametrize("family", ["t5", "llama", "gpt2"])
def test_loss_and_gradients_are_those_of_single_rows_without_padding(opened, family):
    session = opened(family, model_dropout=0)
    batch = examples(session)
    assert len({len(example.source_ids) for example in batch}) > 1 and session.shared_prefix == 0
    expected = explicit_loss(session, batch, lambda ids: explicit_prompt(session, ids))
    parameters = [*session.trainables.values()]
    for training in (False, True):
        session.model.train(training)
        (loss,) = Stack([session]).losses([make_batch(session.codec, batch).inputs])
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
        ours = torch.autograd.grad(loss, parameters)
        theirs = torch.autograd.grad(expected, parameters, retain_graph=True)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["t5", "llama", "gpt2"])
def test_generated_and_scored_answers_see_the_sources_prompt(opened, family):
    session = opened(family)
    batch = examples(session)
    inputs = session.codec.source_batch(batch)
    output = session.model.generate(
        **inputs, do_sample=False, max_new_tokens=5, min_new_tokens=5, pad_token_id=0
    )  # 5 tokens with T5's start
    answers = output[:, 1:] if family == "t5" else output[:, inputs["input_ids"].shape[1] :]
    for example, answer in zip(batch, answers.tolist(), strict=True):
        logits = explicit_logits(session, example.source_ids, answer)
        logits[:, 1] = -torch.inf
        assert logits.argmax(-1).tolist() == answer
    scores = label_log_probabilities(session, inputs)
    for example, row in zip(batch, scores, strict=True):
        for label, score in zip(session.task.labels, row, strict=True):
            ids = session.codec.target_ids(label)
            steps = explicit_logits(session, example.source_ids, ids).log_softmax(-1)
            torch.testing.assert_close(score, sum(s[i] for s, i in zip(steps, ids, strict=True)), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def explicit_logits(session, source_ids, answer):
    """[L, V]: what the model says before each token of the answer, of one row without padding and cache."""
    prompt, decoder = explicit_prompt(session, source_ids), session.model.config.is_encoder_decoder
    if decoder:
        inputs = explicit_inputs(session, source_ids, prompt)[None]
        return session.model(inputs_embeds=inputs, decoder_input_ids=torch.tensor([[0, *answer[:-1]]])).logits[0]
    inputs = explicit_inputs(session, (*source_ids, *answer), prompt)[None]
    return session.model(inputs_embeds=inputs).logits[0, -len(answer) - 1 : -1]


def test_a_model_without_a_cache_of_keys_scores_labels_the_same(opened):
    session = opened("llama")
    inputs = session.codec.source_batch(examples(session))
    cached = label_log_probabilities(session, inputs)
    object.__setattr__(session.capabilities, "has_key_cache", False)
    torch.testing.assert_close(label_log_probabilities(session, inputs), cached, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_from_start_to_record_loaded_again(make_config, mean_prompt, tmp_path, family):
    config = make_config(family, "pt", prompt_len=LENGTH, prompt_lr=0.03, checkpoint_activations=True)
    record = run(config)
    session = load(record["run_id"], results_dir=str(tmp_path / "results"))
    assert session.made_prompt is None and not (tmp_path / "results" / "runs" / record["run_id"] / PROMPT).exists()
    assert record["trainable_params"] == LENGTH * 32 + 32 * 32
    sources = ["The ferry leaves at noon.", "No."]
    assert session.answer(sources) == [session.answer(source) for source in sources]


def test_the_step_compiles_into_one_graph(opened):
    torch._dynamo.reset()
    session = opened("t5", model_dropout=0)
    session.model.train()
    inputs, computed = make_batch(session.codec, examples(session)).inputs, []
    for each in (batch_losses, torch.compile(batch_losses, backend="eager", fullgraph=True)):
        session.batch_losses = each
        computed.append(Stack([session]).losses([inputs]))
    torch.testing.assert_close(*computed)


def test_they_are_not_stacked_and_are_no_table(make_config, mean_prompt):
    configs = [make_config("t5", "pt", prompt_len=LENGTH, seed=seed) for seed in range(2)]
    with pytest.raises(ValueError, match="depends on the row cannot be stacked"):
        Stack(open_sessions(configs))
    with pytest.raises(TypeError, match="MeanPrompt depends on the row"):
        open_session(configs[0]).prompted_embedding.prompt_table()
    session = open_session(configs[0])
    with pytest.raises(TypeError, match="needs the keyword attention_mask"):
        session.model.encoder(torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1))
