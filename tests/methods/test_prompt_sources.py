"""Prompts that are made of other parameters, and the offsets beside ADePT's: counts, starts, losses, the way to PT."""

import json
import math

import pytest
import torch
from conftest import FAMILIES
from explicit_formulas import assert_generation_is_teacher_forcing, examples, explicit_loss, fill, filled_session

from adept.base.errors import UserError
from adept.commands.main import main
from adept.config.layers import resolve
from adept.data.batches import make_batch
from adept.data.dataset import load_data
from adept.models.families import input_embedding_owner
from adept.models.loading import shape_only_model
from adept.models.tiny import make_tokenizer
from adept.runs.adapter import PROMPT, read_weights
from adept.serving.load import load
from adept.training.loop import run
from adept.training.losses import batch_losses
from adept.training.session import open_session, open_sessions
from adept.training.stack import Stack

SOURCES = ("residual", "dpt", "ulpt", "ptuning", "xprompt")
OFFSETS = ("loraxl", "loraxab")


# Counts and starts ----------------------------------------------------------------------------------------------------

LSTM = 2 * 2 * 4 * 384 * (768 + 384 + 2)  # layers, directions, gates; a state of 384, two biases
COUNTS = [
    ("residual", {}, 76_060),
    ("residual", {"prompt_len": 10, "hidden": 800}, 1_239_584),
    ("residual", {"prompt_len": 100, "hidden": 800}, 1_308_704),
    ("dpt", {}, 8_680),
    ("dpt", {"rank": 64}, 55_552),
    ("dpt", {"rank": 88}, 76_384),
    ("ulpt", {}, 7_936),
    ("ulpt", {"rank": 2}, 1_736),
    ("ulpt", {"rank": 256}, 27_136),
    ("ptuning", {}, 100 * 768 + LSTM + 2 * (768 * 768 + 768)),
    ("xprompt", {"keep_tokens": 1, "keep_pieces": 1}, 76_800),
    ("xprompt", {"keep_tokens": 0.3, "keep_pieces": 0.7}, 336 * 48),
    ("pt_embedding", {}, 24_751_104),
    ("loraxl", {}, 76_469),
    ("loraxl", {"prompt_len": 20, "bottleneck": 38}, 76_092),
    ("loraxl", {"prompt_len": 40, "bottleneck": 28}, 75_392),
    ("loraxl", {"prompt_len": 80, "bottleneck": 9}, 76_149),
    ("loraxab", {}, 76_051),
    ("loraxab", {"prompt_len": 60, "rank": 10, "bottleneck": 12}, 75_532),
    ("loraxab", {"prompt_len": 60, "rank": 30, "bottleneck": 128}, 274_304),
]


@pytest.fixture(scope="module")
def t5_base():
    return shape_only_model("t5-base")


@pytest.mark.parametrize(("method", "fields", "count"), COUNTS, ids=lambda value: str(value))
def test_parameters_are_counted_on_t5_bases_shape(t5_base, method, fields, count):
    owner = input_embedding_owner(t5_base.requires_grad_(False))
    table = owner.get_input_embeddings()
    options = resolve({"task": "rte", "method": method, **fields}).method_options
    counted = options.count_trained(options.apply(t5_base, None))
    owner.set_input_embeddings(table)
    assert counted == count


def test_residual_prompt_tuning_starts_beside_rows_of_the_whole_vocabulary(make_config):
    config = make_config("t5", "residual", prompt_len=300)
    assert config.prompt_init_vocab >= 328
    source, table = opened_source(config)
    drawn = (source.prompt[:, None] == table).all(-1)  # [m, V]
    assert (drawn.sum(1) == 1).all() and drawn.any(0).sum() == 300  # different ids
    for linear, fan_in in ((source.down, 32), (source.up, 4)):
        assert linear.weight.abs().max() <= 1 / math.sqrt(fan_in) < 1.2 * linear.weight.abs().max()
    assert torch.equal(source.norm.weight, torch.ones(32)) and not source.norm.bias.any()
    assert not torch.equal(source(), source.prompt)


def test_dpt_starts_uniform(make_config):
    source, _ = opened_source(make_config("t5", "dpt", prompt_len=100, rank=10))
    for factor in (source.u, source.v):
        assert factor.abs().max() <= 0.5 and abs(factor.var() - 1 / 12) < 0.02 and abs(factor.mean()) < 0.05


def test_ulpt_starts_as_its_seed_says_whatever_else_is_drawn(make_config):
    one, other, another = (opened_source(make_config("t5", "ulpt", prompt_len=50, seed=seed))[0] for seed in (1, 1, 2))
    longer, _ = opened_source(make_config("t5", "ulpt", prompt_len=70, seed=1))
    assert torch.equal(one.projection, other.projection) and torch.equal(one.projection, longer.projection)
    assert not torch.equal(one.projection, another.projection)
    bound = math.sqrt(6 / (3 + 32))
    assert one.projection.abs().max() <= bound < 1.1 * one.projection.abs().max()
    assert abs(one.z.std() - 1) < 0.2 and torch.equal(one.scale, torch.ones(32)) and not one.shift.any()
    numbers = torch.stack([one.z.flatten()[:96], one.projection.flatten()])
    assert abs(torch.corrcoef(numbers.detach())[0, 1]) < 0.3  # not the same random numbers


@pytest.mark.parametrize("method", OFFSETS)
def test_the_released_offsets_start_at_zero_within_their_bounds(make_config, method):
    session = open_session(make_config("t5", method, bottleneck=9))
    embeds, offset, _ = session.prompted_embedding.parts(torch.tensor([[*session.codec.prompt_ids, 5, 6]]))
    assert embeds.any() and not offset.any()
    uniform = [p for name, p in session.trainables.items() if name.endswith(("w_down", "w_hidden"))]
    assert len(uniform) == {"loraxl": 2, "loraxab": 1}[method]
    assert all(p.abs().max() <= 1 / 3 < 1.2 * p.abs().max() for p in uniform)


def opened_source(config):
    """(what makes the prompt, the model's table) of a new session."""
    hook = open_session(config).prompted_embedding
    return hook.source, hook.base.weight


# What the model computes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["t5", "llama", "gpt2"])
@pytest.mark.parametrize("method", [*SOURCES, *OFFSETS])
def test_loss_equals_the_explicit_formula_and_generation_teacher_forcing(filled, family, method):
    session = filled(family, method, **({"offset_len": 12} if method == "loraxab" else {}))
    batch = examples(session)
    loss = session.model(**session.codec.train_batch(batch)).loss
    torch.testing.assert_close(loss, explicit_loss(session, batch), rtol=1e-5, atol=1e-6)
    assert_generation_is_teacher_forcing(session, batch)


@pytest.mark.parametrize("family", ["t5", "llama", "gpt2"])
@pytest.mark.parametrize("method", [*SOURCES, *OFFSETS])
def test_steps_with_shared_keys_and_checkpointed_blocks_are_plain_steps(filled, monkeypatch, family, method):
    """And each trained parameter has a gradient."""
    computed = []
    for shortcut in (True, False):
        session = filled(family, method, model_dropout=0, checkpoint_activations=shortcut)
        if not shortcut:
            monkeypatch.setattr(type(session), "shared_prefix", 0)
        session.model.double().train()
        inputs = make_batch(session.codec, examples(session)).inputs
        loss = Stack([session]).losses([inputs])
        computed.append([loss, *torch.autograd.grad(loss, [*session.trainables.values()])])
    torch.testing.assert_close(*computed, rtol=1e-4, atol=1e-6)  # rotary angles stay in fp32
    assert all(gradient.any() for gradient in computed[0][1:])


@pytest.mark.parametrize("method", ["residual", "ulpt", "xprompt"])
def test_bf16_forms_the_prompt_in_fp32_and_rounds_it_once(make_config, method):
    plain = filled_session(make_config, "llama", method)
    half = filled_session(make_config, "llama", method, precision="bf16")
    ids = torch.tensor([half.codec.prompt_ids])
    with half.autocast():
        assert torch.equal(half.prompted_embedding(ids)[0], plain.prompted_embedding.prompt_table().bfloat16())
        assert half.prompted_embedding.prompt_table().dtype == torch.float32


def test_the_step_compiles_into_one_graph(make_config):
    torch._dynamo.reset()
    session = filled_session(make_config, "llama", "residual", model_dropout=0)
    session.model.train()
    inputs, computed = make_batch(session.codec, examples(session)).inputs, []
    for each in (batch_losses, torch.compile(batch_losses, backend="eager", fullgraph=True)):
        session.batch_losses = each
        losses = Stack([session]).losses([inputs])
        computed.append((losses, torch.autograd.grad(losses.sum(), [*session.trainables.values()])))
    torch.testing.assert_close(*computed)


@pytest.mark.parametrize("family", FAMILIES)
def test_stacked_losses_and_gradients_are_those_of_each_run(make_config, family):
    """Prompts of several kinds, lengths and seeds side by side, each row with its own run's."""
    made = [("residual", {"prompt_len": 3}), ("ulpt", {"seed": 5}), ("ulpt", {"seed": 6}), ("ptuning", {}),
            ("pt", {}), ("dpt", {"prompt_len": 4}), ("xprompt", {}), ("loraxab", {}), ("loraxl", {})]  # fmt: skip
    configs = [make_config(family, method, **{"model_dropout": 0, **fields}) for method, fields in made]
    sessions = [*map(fill, open_sessions(configs))]
    batches = [make_batch(session.codec, examples(session)).inputs for session in sessions]
    for session in sessions:
        session.model.train()
    together = Stack(sessions).losses(batches)
    assert len(set(together.tolist())) == len(made)
    for i, (session, batch) in enumerate(zip(sessions, batches, strict=True)):
        (alone,), parameters = Stack([session]).losses([batch]), [*session.trainables.values()]
        torch.testing.assert_close(together[i], alone, rtol=1e-5, atol=1e-6)
        ours = torch.autograd.grad(together.sum(), parameters, retain_graph=True)
        torch.testing.assert_close(ours, torch.autograd.grad(alone, parameters), rtol=1e-3, atol=1e-5)


def test_loraxl_folds_and_loraxab_does_not(make_config, world, capsys):
    session = filled_session(make_config, "llama", "loraxl")
    batch = session.codec.source_batch(examples(session))
    live = session.model(**batch).logits
    session.prompted_embedding.fold()
    assert session.prompted_embedding.offset is None
    torch.testing.assert_close(session.model(**batch).logits, live, rtol=1e-5, atol=1e-5)
    with pytest.raises(TypeError, match="TokenAndPositionOffset"):
        filled_session(make_config, "llama", "loraxab").prompted_embedding.fold()
    assert main(["train", "--task", "rte", "--method", "loraxab", "--fold"]) == 2
    assert "--fold has no effect on method 'loraxab'" in capsys.readouterr().err


# Runs -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in SOURCES if name != "xprompt"])
def test_a_finished_prompt_is_a_plain_prompt(make_config, tmp_path, method):
    """A run of prompt tuning that starts from it and trains nothing answers as the run does."""
    fields = {"scoring": "likelihood", "prompt_lr": 0.03}
    record = run(make_config("t5", method, **fields))
    folder = tmp_path / "results" / "runs" / record["run_id"]
    plain = make_config("t5", "pt", prompt_len=8, steps=0, init_from=record["run_id"], scoring="likelihood")
    copied = run(plain)
    assert (copied["test"], copied["trainable_params"]) == (record["test"], 8 * 32)
    (prompt,) = read_weights(folder.with_name(copied["run_id"])).values()
    assert torch.equal(prompt, load(record["run_id"], results_dir=str(tmp_path / "results")).made_prompt)
    lines = [
        [json.loads(line)["prediction"] for line in (folder.with_name(name) / "predictions.jsonl").open()]
        for name in (record["run_id"], copied["run_id"])
    ]
    assert lines[0] == lines[1]
    with pytest.raises(UserError, match=r"prompt is \[8, 32\], this run needs \[9, 32\]$"):
        run(plain.replace(prompt_len=9))
    with pytest.raises(UserError, match=r"does not fit: it lacks encoder.embed_tokens.offset"):
        run(make_config("t5", "adept", init_from=record["run_id"]))
    (folder / PROMPT).write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"prompt.safetensors holds no readable prompt"):
        run(plain.replace(seed=2))


def test_a_ulpt_adapter_belongs_to_its_seed(make_config, tmp_path):
    config = make_config("t5", "ulpt", seed=3, prompt_lr=0.03, scoring="likelihood")
    record, results = run(config), str(tmp_path / "results")
    again = run(config.replace(steps=0, init_from=record["run_id"]))
    assert again["test"] == record["test"]
    line = "fits what --seed 3 draws beside it, .*: --seed must be 3, not 4$"
    with pytest.raises(UserError, match=line):
        run(config.replace(seed=4, init_from=record["run_id"]))
    with pytest.raises(UserError, match=line):
        load(record["run_id"], results_dir=results, seed=4)
    assert not {name for name in load(record["run_id"], results_dir=results).trainables if "projection" in name}


def test_p_tuning_needs_an_even_width(make_config, tmp_path):
    import transformers

    fields = {"vocab_size": 328, "d_model": 33, "d_kv": 8, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    transformers.T5ForConditionalGeneration(transformers.T5Config(**fields, decoder_start_token_id=0)).save_pretrained(
        tmp_path
    )
    make_tokenizer(tmp_path, appends_eos=True)
    with pytest.raises(UserError, match="halves the model's width between two directions, but it is 33"):
        open_session(make_config("t5", "ptuning", model=str(tmp_path)))


def test_training_rows_are_not_read_by_methods_that_need_no_gradients(make_config, monkeypatch):
    def no_gradients(*_):
        raise AssertionError("a pass over the rows")

    monkeypatch.setattr("adept.training.start.batch_gradients", no_gradients)
    config = make_config("t5", "residual", steps=1)
    assert run(config)["sizes"]["train"] == len(load_data(open_session(config).task, config).train)
