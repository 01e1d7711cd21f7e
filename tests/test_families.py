"""Every family of models: the same numbers as plain transformers, by code that is written out here.

The prompt starts as the embeddings of a text, so a plain model whose input begins with that text's ids is the
reference: it knows no prompt, no shared keys, no padding and no batch.
"""

import copy
import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
import transformers
from tiny_families import CAUSAL, COMMON, SEQ2SEQ, build

from adept.base.errors import UserError
from adept.data.batches import make_batch
from adept.data.example import Example
from adept.methods.embedding import prompt_from_vocab
from adept.models.capabilities import capabilities_of
from adept.models.computed_prompt import compute_prompt, join_prompts
from adept.models.dropout import DropoutRates, check_dropout, set_config_dropout
from adept.models.likelihood import choice_logits
from adept.models.loading import load_model
from adept.training import evaluation
from adept.training.evaluation import computed_prompt, evaluating, folded, predict
from adept.training.optim import make_optimizer, parameter_groups
from adept.training.session import open_session, open_session_on
from adept.training.stack import Stack
from adept.training.step import StepInput, train_step

TEXT = "a boat"  # where the prompt starts
SOURCES = (
    "The ferry leaves at noon.",
    "Maria sold her bakery to the town, and then she bought another.",
    "All closed.",
)
LABELS = ("no", "yes", "no")
NO_LORA = {"DeepseekV3", "Mamba", "Mamba2", "MiniCPM3", "Rwkv"}
CLOSE = {"rtol": 2e-4, "atol": 2e-4}


@pytest.fixture(scope="module")
def tokenizers_by_kind(model_folders):
    return {kind: transformers.AutoTokenizer.from_pretrained(model_folders[kind]) for kind in ("t5", "llama")}


@pytest.fixture
def opened(make_config, tokenizers_by_kind):
    """opened(family, method, **fields): (session, the plain model, the ids where the prompt starts, encoded rows)."""

    def make(family, method="adept", changes=None, **fields):
        plain = build(family, **(changes or {}))
        kind = "t5" if plain.config.is_encoder_decoder else "llama"
        prompt = {"prompt_init": "text", "prompt_init_text": TEXT} if method in ("adept", "pt", "dept") else {}
        config = make_config(kind, method, max_source_len=48, **prompt, **fields)
        tokenizer = copy.deepcopy(tokenizers_by_kind[kind])
        session = open_session_on(config, copy.deepcopy(plain).requires_grad_(False), tokenizer)
        ids = tokenizer(TEXT).input_ids
        ids = [ids[i % len(ids)] for i in range(len(session.codec.prompt_ids))]
        answers = [session.task.labels[LABELS[i] == "yes"] for i in range(len(SOURCES))]
        rows = [Example(str(i), source, answers[i], (answers[i],)) for i, source in enumerate(SOURCES)]
        return session, plain, ids, session.codec.encode(rows)

    return make


# Plain transformers ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def plain_logits(plain, source, target):
    """[L, V]: what a model says before each id of the target, of one row without padding and cache."""
    if not plain.config.is_encoder_decoder:
        ids = torch.tensor([[*source, *target]])
        return plain(input_ids=ids, use_cache=False).logits[0, len(source) - 1 : -1]
    start = plain.generation_config.decoder_start_token_id
    start = plain.generation_config.bos_token_id if start is None else start
    ids, decoder = torch.tensor([source]), torch.tensor([[start, *target[:-1]]])
    return plain(input_ids=ids, decoder_input_ids=decoder, use_cache=False).logits[0]


def plain_greedy(plain, source, eos, length):
    """The most likely id after another, until EOS, without a cache."""
    answer = []
    while len(answer) < length and eos not in answer:
        answer.append(plain_logits(plain, source, [*answer, eos])[-1].argmax().item())
    return answer


# The table ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*CAUSAL, *SEQ2SEQ])
def test_a_batchs_loss_is_plain_transformers_loss_of_its_rows(opened, family):
    session, plain, prompt, rows = opened(family)
    (loss,) = Stack([session]).losses([make_batch(session.codec, rows).inputs])
    logits = torch.cat([plain_logits(plain, [*prompt, *row.source_ids], row.target_ids) for row in rows])
    expected = F.cross_entropy(logits, torch.tensor([i for row in rows for i in row.target_ids]))
    torch.testing.assert_close(loss.detach(), expected, **CLOSE)


@pytest.mark.parametrize("family", [*CAUSAL, *SEQ2SEQ])
def test_answers_are_those_of_greedy_search_without_a_cache(opened, family, monkeypatch):
    monkeypatch.setitem(evaluation.LEAST_FULL, "cpu", 0)  # with padding
    session, plain, prompt, rows = opened(family, max_new_tokens=6)
    eos = session.codec.tokenizer.eos_token_id
    expected = [plain_greedy(plain, [*prompt, *row.source_ids], eos, 6) for row in rows]
    assert predict(session, rows) == [session.codec.text(ids) for ids in expected]


@pytest.mark.parametrize("family", [*CAUSAL, *SEQ2SEQ])
def test_labels_have_plain_transformers_log_probabilities(opened, family):
    session, plain, prompt, rows = opened(family)
    session.model.eval()
    choices = [[5, 6, 1], [7, 8, 1]]
    rows = rows if session.capabilities.ignores_left_padding else rows[:1]
    with torch.no_grad():
        logits = choice_logits(
            session.model,
            session.codec.source_batch(rows),
            torch.tensor(choices),
            with_cache=session.capabilities.has_key_cache,
            prompt=computed_prompt(session),
        )
    expected = [plain_logits(plain, [*prompt, *row.source_ids], choice) for row in rows for choice in choices]
    torch.testing.assert_close(logits.log_softmax(-1), torch.stack(expected).log_softmax(-1), **CLOSE)


@pytest.mark.parametrize("family", CAUSAL)
def test_each_row_of_a_batch_may_have_a_computed_prompt_of_its_own(opened, family):
    """Or none: as in a bank of several runs."""
    session, plain, prompt, rows = opened(family)
    if not session.capabilities.ignores_left_padding:
        rows = rows[:1]
    session.model.eval()
    own = [prompt[number : 3 + 2 * number] for number in range(len(rows))]
    own[-1] = () if len(rows) > 2 else own[-1]
    sources = [[*ids, *row.source_ids] for ids, row in zip(own, rows, strict=True)]
    able = computed_prompt(session) is not None
    with torch.no_grad():
        computed = join_prompts([compute_prompt(session.model, ids) if able and ids else None for ids in own])
        logits = choice_logits(
            session.model, session.codec.pad_sources(sources), torch.tensor([[5, 6, 1]]),
            with_cache=session.capabilities.has_key_cache, prompt=computed,
        )  # fmt: skip
    expected = [plain_logits(plain, ids, [5, 6, 1]) for ids in sources]
    torch.testing.assert_close(logits.log_softmax(-1), torch.stack(expected).log_softmax(-1), **CLOSE)


@pytest.mark.parametrize("family", [*CAUSAL, *SEQ2SEQ])
def test_folded_is_unfolded_and_a_step_moves_prompt_and_offset_alone(opened, family):
    session, _, _, rows = opened(family)
    embedding = session.prompted_embedding
    ids = torch.tensor([[*session.codec.prompt_ids, *range(5, 40)]])
    before = {name: value.clone() for name, value in session.model.state_dict().items()}
    optimizer = make_optimizer(parameter_groups(session.model, {r".*\.(prompt|offset.*)": 0.1}), session.config)
    session.model.train()
    for _ in range(2):  # W_down moves once W_up has
        (result,) = train_step([StepInput(session, optimizer, (make_batch(session.codec, rows),), 1.0)])
        assert result.loss.isfinite()
    moved = {name for name, value in session.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == set(session.trainables) and len(moved) == 5
    session.model.eval()
    with torch.no_grad():
        live = embedding(ids)
        with folded(session):
            torch.testing.assert_close(embedding(ids), live)
        assert (live[0, 5:] - embedding.base(ids[:, 5:])[0]).abs().max() > 0.01


@pytest.mark.parametrize("family", [*CAUSAL, *SEQ2SEQ])
def test_dropout_0_means_no_dropout_and_another_rate_means_that_rate(family):
    config = build(family).config
    with DropoutRates() as noisy:
        train_twice(build(family, config=with_rates(config, 0.3)))
    assert noisy.found <= {0.0, 0.3}
    for rate in (0.0, 0.25):
        changed = with_rates(config, 0.3)
        set_config_dropout(changed, rate)
        model = build(family, config=changed)
        check_dropout(model, rate)
        with DropoutRates() as rates:
            losses = train_twice(model)
        assert rates.found <= {0.0, rate}
        if rate == 0:
            torch.testing.assert_close(*losses, rtol=0, atol=0)


@pytest.mark.parametrize(
    "family", ["Bart", "Bloom", "BioGpt", "Falcon", "GPTNeo", "M2M100", "OPT", "ProphetNet", "XGLM"]
)
def test_a_model_is_loaded_without_dropout(tokenizers_by_kind, tmp_path, family):
    model = build(family, config=with_rates(build(family).config, 0.3))
    folder = save(tmp_path / "model", model, tokenizers_by_kind["llama"])
    as_stored, without = load_model(folder)[0], load_model(folder, dropout=0.0)[0]
    assert not torch.equal(*train_twice(as_stored))
    torch.testing.assert_close(*train_twice(without), rtol=0, atol=0)


def with_rates(config, rate):
    """A copy of the config in which every field that a dropout could be read from has that rate."""
    config = copy.deepcopy(config)
    for name, value in list(vars(config).items()):
        if isinstance(value, transformers.PretrainedConfig):
            vars(config)[name] = with_rates(value, rate)
        elif isinstance(value, float | int) and not isinstance(value, bool) and ("dropout" in name or "pdrop" in name):
            vars(config)[name] = rate
    return config


def train_twice(model):
    ids = torch.arange(5, 21)[None]
    inputs = {"decoder_input_ids": ids[:, :4]} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return [model.train()(input_ids=ids, **inputs).logits for _ in range(2)]


# Where a prompt's keys are shared -------------------------------------------------------------------------------------


def test_a_prompts_keys_are_shared_where_that_is_exact():
    shared = {family for family in CAUSAL if capabilities_of(build(family)).has_key_cache}
    assert set(CAUSAL) - shared == {
        "Bamba", "FalconH1", "Gemma3nText", "GraniteMoeHybrid", "Jamba", "Lfm2", "Mamba", "Mamba2", "OpenAIGPT",
        "Qwen3Next", "RecurrentGemma", "Rwkv",
    }  # fmt: skip


def test_an_evaluation_computes_the_prompt_once_where_padding_behind_it_is_ignored():
    """MPT and RoFormer count columns, not positions; the windows of the others are narrower than the rows."""
    found = {family: capabilities_of(build(family)) for family in CAUSAL}
    found = {family: own for family, own in found.items() if own.has_key_cache}
    assert {family for family, own in found.items() if not own.ignores_inner_padding} == {"Mpt", "RoFormer"}
    assert {family: own.window for family, own in found.items() if own.window} == dict.fromkeys(
        ("GPTNeo", "Gemma2", "Gemma3Text", "Gemma4Text", "GptOss", "Llama4Text", "Mistral", "Phi3"), 8
    )


@pytest.mark.parametrize(
    ("family", "window"),
    [("GPTNeo", "window_size"), ("Gemma3Text", "sliding_window"), ("Llama4Text", "attention_chunk_size")],
)
def test_a_window_wider_than_the_rows_is_no_hindrance(opened, family, window):
    session, plain, prompt, rows = opened(family, changes={window: 53})
    assert computed_prompt(session) is None  # 5 + 48 columns and the answer
    session, plain, prompt, rows = opened(family, changes={window: 64})
    with evaluating(session), torch.no_grad():
        assert computed_prompt(session) is not None
        batch, choices = session.codec.source_batch(rows), torch.tensor([[5, 6, 1]])
        logits = choice_logits(session.model, batch, choices, with_cache=True, prompt=computed_prompt(session))
    expected = [plain_logits(plain, [*prompt, *row.source_ids], choices[0].tolist()) for row in rows]
    torch.testing.assert_close(logits, torch.stack(expected), **CLOSE)


LENGTH_DEPENDENT = {
    "dynamic": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16},
    "longrope": {"rope_type": "longrope", "rope_theta": 1e4, "factor": 8.0, "short_factor": [1.0] * 4,
                 "long_factor": [7.0] * 4, "original_max_position_embeddings": 16},
}  # fmt: skip


@pytest.mark.parametrize("rope", LENGTH_DEPENDENT)
def test_positions_that_depend_on_the_rows_length(opened, rope):
    positions = {"max_position_embeddings": 16} if rope == "dynamic" else {}
    changes = {"rope_parameters": LENGTH_DEPENDENT[rope], "original_max_position_embeddings": 16}
    plain = build("Llama", **changes)
    assert not capabilities_of(plain).has_key_cache
    session, plain, prompt, rows = opened("Llama", changes=changes)
    plain.config.max_position_embeddings = positions.get("max_position_embeddings", 128)
    row = max(rows, key=lambda row: len(row.source_ids))  # of several rows the longest decides
    assert session.shared_prefix == 0 and len(prompt) + len(row.source_ids) > 16
    session.codec = dataclasses.replace(session.codec, multiple=1)
    (loss,) = Stack([session]).losses([make_batch(session.codec, [row]).inputs])
    logits = plain_logits(plain, [*prompt, *row.source_ids], row.target_ids)
    torch.testing.assert_close(loss.detach(), F.cross_entropy(logits, torch.tensor(row.target_ids)), **CLOSE)
    session.model.eval()
    with torch.no_grad():
        scored = choice_logits(
            session.model, session.codec.source_batch([row]), torch.tensor([row.target_ids]), with_cache=False
        )
    torch.testing.assert_close(scored[0], logits, **CLOSE)


@pytest.mark.parametrize("family", ["Bloom", "Mpt", "OPT", "Gemma2", "RoFormer", "GPT2", "Lfm2", "Rwkv"])
def test_stacked_runs_with_prompts_of_two_lengths_have_their_own_losses(opened, make_config, family):
    short, _, _, rows = opened(family, "pt", prompt_len=3)
    long, _, _, _ = opened(family, "pt", prompt_len=7)
    batches = [make_batch(session.codec, rows).inputs for session in (short, long)]
    apart = [Stack([s]).losses([b])[0] for s, b in zip((short, long), batches, strict=True)]
    together = Stack([short, long]).losses(batches)
    torch.testing.assert_close(together, torch.stack(apart), **CLOSE)


# Checkpoint defaults --------------------------------------------------------------------------------------------------


def save(folder, model, tokenizer, **generation):
    """Saves a model folder; generation: what its generation_config.json is to hold."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if generation:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return str(folder)


LEAKS = [
    {"forced_bos_token_id": 0},
    {"min_length": 56},
    {"repetition_penalty": 1.5, "no_repeat_ngram_size": 1},
    {"suppress_tokens": [*range(5, 200)]},
    {"return_dict_in_generate": True, "output_scores": True},
    {"stop_strings": ["e"]},
    {"penalty_alpha": 0.6, "top_k": 4},
    {"num_beams": 3, "length_penalty": 2.0},
    {"do_sample": True, "temperature": 3.0},
    {"bad_words_ids": [[i] for i in range(5, 200)]},
]


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: next(iter(leak)))
@pytest.mark.parametrize("family", ["Llama", "Bart"])
def test_nothing_of_a_checkpoints_generation_config_is_in_force(
    make_config, tokenizers_by_kind, tmp_path, family, leak
):
    kind = "llama" if family == "Llama" else "t5"
    plain = build(family)
    folder = save(tmp_path / "model", plain, tokenizers_by_kind[kind], **leak)
    prompt = {"prompt_init": "text", "prompt_init_text": TEXT, "max_new_tokens": 8}
    session = open_session(make_config(kind, "pt", model=folder, max_source_len=48, prompt_len=3, **prompt))
    ids = (session.codec.tokenizer(TEXT).input_ids * 3)[:3]
    rows = session.codec.encode([Example(str(i), source, "x", ()) for i, source in enumerate(SOURCES)])
    expected = [plain_greedy(plain, [*ids, *row.source_ids], 1, 8) for row in rows]
    assert predict(session, rows) == [session.codec.text(answer) for answer in expected]


def test_a_config_that_holds_generation_options_is_no_obstacle(make_config, tokenizers_by_kind, tmp_path):
    folder = save(tmp_path / "model", build("Llama"), tokenizers_by_kind["llama"])
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "no_repeat_ngram_size": 1, "num_beams": 4}))
    (tmp_path / "model" / "generation_config.json").unlink()
    plain = open_session(make_config("llama", "zero_shot", model=folder))
    rows = plain.codec.encode([Example("0", SOURCES[0], "x", ())])
    other = save(tmp_path / "other", build("Llama"), tokenizers_by_kind["llama"])
    assert predict(plain, rows) == predict(open_session(make_config("llama", "zero_shot", model=other)), rows)


def test_sampling_draws_from_what_the_protocol_says(make_config, tokenizers_by_kind, tmp_path):
    """MBPP: temperature, top_p and top_k, and none of the checkpoint's."""
    answers = []
    for leak in ({}, {"repetition_penalty": 3.0, "min_p": 0.9, "typical_p": 0.1, "suppress_tokens": [*range(5, 300)]}):
        folder = save(tmp_path / str(bool(leak)), build("Llama"), tokenizers_by_kind["llama"], **leak)
        session = open_session(
            make_config("llama", "zero_shot", task="mbpp", model=folder, max_new_tokens=8, allow_code_execution=True,
                        max_target_len=8)
        )  # fmt: skip
        answers.append(predict(session, session.codec.encode([Example("0", SOURCES[0], "x", ())])))
    assert answers[0] == answers[1]


# Embeddings that compute ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "changes"), [("MBart", {}), ("BioGpt", {"scale_embedding": True}), ("Gemma3Text", {})]
)
def test_a_prompt_starts_as_what_the_model_sees_of_the_drawn_ids(opened, family, changes):
    session, plain, _, _ = opened(family, "pt", changes=changes)
    embedding = plain.get_encoder().get_input_embeddings() if family == "MBart" else plain.get_input_embeddings()
    torch.manual_seed(0)
    drawn = prompt_from_vocab(embedding, 4, 50)
    torch.manual_seed(0)
    picks = torch.randperm(50)[:4]
    torch.testing.assert_close(drawn, embedding(picks).detach())
    assert not torch.allclose(drawn, embedding.weight[picks])
    ids = torch.tensor([[*session.codec.prompt_ids]])
    start = torch.tensor(session.codec.tokenizer(TEXT).input_ids)[:1]
    torch.testing.assert_close(session.prompted_embedding(ids)[0, :1], embedding(start))


# Positions, ids, and what cannot run ----------------------------------------------------------------------------------


def test_an_encoder_decoders_positions_are_checked_on_both_sides(opened):
    with pytest.raises(UserError, match=r"--prompt_len 20 \+ --max_source_len 48 exceed the model's 64 positions"):
        opened("Bart", changes={"max_position_embeddings": 64}, prompt_len=20)
    with pytest.raises(UserError, match="70 target tokens exceed the model's 64 positions"):
        opened("Bart", changes={"max_position_embeddings": 64}, max_new_tokens=70)
    opened("LED", changes={"max_decoder_position_embeddings": 64}, max_new_tokens=64)
    with pytest.raises(UserError, match="65 target tokens exceed the model's 64 positions"):
        opened("LED", changes={"max_decoder_position_embeddings": 64}, max_new_tokens=65)
    opened("T5", max_new_tokens=1000)


def test_a_tokenizer_may_be_larger_than_the_table_but_not_the_data(make_config, tokenizers_by_kind, tmp_path):
    for kind, family in (("llama", "Llama"), ("t5", "Bart")):
        tokenizer = copy.deepcopy(tokenizers_by_kind[kind])
        tokenizer.add_tokens([f"<unused{i}>" for i in range(20)])
        tokenizer.add_special_tokens({"pad_token": "<padding>"})
        assert tokenizer.pad_token_id >= 328 and tokenizer.convert_tokens_to_ids("<unused9>") == 329
        folder = save(tmp_path / kind, build(family), tokenizer)
        session = open_session(make_config(kind, "pt", model=folder, max_source_len=48, max_target_len=8))
        (row,) = session.codec.encode([Example("0", SOURCES[0], "a", ())])
        assert predict(session, [row])
        for source, target in (("a <unused9> b", "a"), ("a", "<unused9>")):
            with pytest.raises(UserError, match="'<unused9>', id 329, but the model's embedding has only 328 rows"):
                session.codec.encode([Example("0", source, target, ())])
        with pytest.raises(UserError, match="--prompt_init_text 'a <unused9>' has a token of id 329"):
            text = {"prompt_init": "text", "prompt_init_text": "a <unused9>"}
            open_session(make_config(kind, "pt", model=folder, max_source_len=48, **text))


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (transformers.BertConfig(**COMMON, hidden_size=32, num_hidden_layers=2, num_attention_heads=4),
         "BertLMHeadModel does not write from left to right"),
        (transformers.XLNetConfig(d_model=32, n_layer=2, n_head=4, d_inner=64, **COMMON),
         "XLNetLMHeadModel does not write from left to right"),
        (transformers.FSMTConfig(langs=["en", "de"], src_vocab_size=328, tgt_vocab_size=328, **SEQ2SEQ["Bart"]),
         "FSMTForConditionalGeneration does not let its input embedding be replaced"),
        (transformers.Gemma4TextConfig(**{**COMMON, **CAUSAL["Gemma4Text"], "hidden_size_per_layer_input": 8}),
         "Gemma4ForCausalLM looks token ids up in a second table, model.embed_tokens_per_layer"),
    ],
    ids=["Bert", "XLNet", "FSMT", "Gemma4"],
)  # fmt: skip
def test_what_cannot_run_is_one_line(make_config, tokenizers_by_kind, config, line):
    kind = "t5" if config.is_encoder_decoder else "llama"
    auto = transformers.AutoModelForSeq2SeqLM if kind == "t5" else transformers.AutoModelForCausalLM
    model = auto.from_config(config).requires_grad_(False)
    with pytest.raises(UserError, match=line):
        open_session_on(make_config(kind, "pt", max_source_len=48), model, copy.deepcopy(tokenizers_by_kind[kind]))


@pytest.mark.parametrize("family", [*CAUSAL, *SEQ2SEQ])
def test_lora_runs_or_names_what_would(opened, family):
    if family in NO_LORA:
        with pytest.raises(
            UserError, match=r"LoRA finds no attention projections .* --method adept, dept, pt and full need"
        ):
            opened(family, "lora")
        return
    session, plain, _, rows = opened(family, "lora", lora_dropout=0.0)
    (loss,) = Stack([session]).losses([make_batch(session.codec, rows).inputs])
    logits = torch.cat([plain_logits(plain, row.source_ids, row.target_ids) for row in rows])
    expected = F.cross_entropy(logits, torch.tensor([i for row in rows for i in row.target_ids]))
    torch.testing.assert_close(loss.detach(), expected, **CLOSE)


def test_a_dropout_rate_that_is_written_into_the_code_is_one_line():
    model = build("Llama")
    model.model.norm.register_forward_hook(lambda module, _, output: F.dropout(output, 0.2, module.training))
    with pytest.raises(UserError, match=r"--model_dropout 0 cannot be set in LlamaForCausalLM: .* dropout of 0.2"):
        check_dropout(model, 0.0)


def test_a_decoder_without_a_start_token_is_one_line(opened):
    with pytest.raises(UserError, match="nothing says with which token the decoder of MBartForConditionalGeneration"):
        opened("MBart", changes={"decoder_start_token_id": None, "bos_token_id": None})
