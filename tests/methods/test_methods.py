"""Every method: the paper's parameter counts, and what moves in a step.

tests/training/test_golden.py has what the steps compute.
"""

import json

import pytest
import torch
import transformers
from conftest import runs_of_methods

from adept.base.errors import UserError
from adept.config.layers import resolve
from adept.data.batches import training_batches
from adept.data.dataset import load_data
from adept.methods import METHODS
from adept.models.loading import load_model
from adept.runs.adapter import read_weights, restore_adapter
from adept.serving.load import load
from adept.training.evaluation import evaluate
from adept.training.loop import run
from adept.training.optim import make_optimizer, parameter_groups
from adept.training.session import open_session
from adept.training.step import next_step_input, train_step

T5_BASE = transformers.T5Config(vocab_size=32128, d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)
T5_3B = transformers.T5Config(vocab_size=32128, d_model=1024, d_kv=128, d_ff=16384, num_layers=24, num_heads=32)
CODEGEN_350M = transformers.CodeGenConfig(vocab_size=51200, n_embd=1024, n_layer=20, n_head=16, rotary_dim=32)
LLAMA3_8B = transformers.LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)

PAPER = [
    (T5_BASE, {"method": "pt"}, 76_800),
    (T5_BASE, {"method": "dept"}, 76_800),
    (T5_BASE, {"method": "dept", "prompt_len": 40, "rank": 45}, 76_800),
    (T5_BASE, {"method": "dept", "task": "rte", "max_source_len": 512, "rank": 24}, 76_800),
    (T5_BASE, {"method": "adept"}, 76_051),
    (T5_BASE, {"method": "adept", "prompt_len": 20, "bottleneck": 39}, 76_071),
    (T5_BASE, {"method": "adept", "prompt_len": 40, "bottleneck": 29}, 76_061),
    (T5_BASE, {"method": "adept", "prompt_len": 80, "bottleneck": 9}, 76_041),
    (T5_BASE, {"method": "adept", "prompt_len": 0, "bottleneck": 49}, 76_081),
    (T5_BASE, {"method": "pt_table"}, 24_751_104),
    (T5_3B, {"method": "pt"}, 102_400),
    (T5_3B, {"method": "adept"}, 101_395),
    (T5_3B, {"method": "dept", "max_source_len": 512, "rank": 26}, 101_376),
    (T5_3B, {"method": "lora", "rank": 35}, 25_804_800),
    (CODEGEN_350M, {"method": "pt", "prompt_len": 10}, 10_240),
    (CODEGEN_350M, {"method": "dept", "prompt_len": 7, "rank": 2, "offset_len": 574}, 10_364),
    (CODEGEN_350M, {"method": "adept", "prompt_len": 7, "bottleneck": 1}, 10_241),
    (CODEGEN_350M, {"method": "lora"}, 1_310_720),
    (LLAMA3_8B, {"method": "pt", "prompt_len": 10}, 40_960),
    (LLAMA3_8B, {"method": "dept", "prompt_len": 7, "rank": 3, "offset_len": 574}, 42_682),
    (LLAMA3_8B, {"method": "adept", "prompt_len": 7, "bottleneck": 1}, 40_961),
    (LLAMA3_8B, {"method": "lora"}, 9_437_184),
]


@pytest.mark.parametrize(
    ("shape", "flags", "count"), PAPER, ids=lambda value: getattr(value, "model_type", None) or str(value)
)
def test_parameter_counts_of_the_paper(shape, flags, count):
    """The true shapes, without memory: PAPER's #Para columns to the digit."""
    kind = transformers.AutoModelForSeq2SeqLM if shape.is_encoder_decoder else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(shape)
    config = resolve({"task": "rte", **flags})
    adapted = config.method_options.apply(model.requires_grad_(False), None)
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == count


def test_a_method_refuses_a_model_of_a_kind_that_it_cannot_run_on(make_config):
    class EncoderDecoderOnly(METHODS["full"]):
        kinds = ("encoder-decoder",)

    config, tokenizer = make_config("llama", "full"), None
    model, _ = load_model(config.model)
    with pytest.raises(
        UserError,
        match=r"^method 'full' runs on encoder-decoder models; LlamaForCausalLM is decoder-only: choose another "
        r"--model or --method$",
    ):
        EncoderDecoderOnly().adapt(model, tokenizer)
    assert not any(p.requires_grad for p in model.parameters())
    assert EncoderDecoderOnly().adapt(load_model(make_config("t5", "full").model)[0], tokenizer)


def one_step(config):
    session = open_session(config)
    optimizer = make_optimizer(parameter_groups(session.model, config.method_options.learning_rates()), config)
    train = session.codec.encode(load_data(session.task, config).train)
    session.model.train()
    return session, optimizer, training_batches(session.codec, train, config)


@pytest.mark.parametrize(("method", "family"), runs_of_methods())
def test_only_the_methods_parameters_move_and_all_of_them_do(make_config, family, method):
    fields = {"max_source_len": 64}
    if "prompt_lr" in METHODS[method].own_options():
        fields["prompt_lr"] = 1e-2
    if method == "dept":
        fields["offset_len"] = 64
    session, optimizer, batches = one_step(make_config(family, method, **fields))
    before = {name: p.detach().clone() for name, p in session.model.named_parameters()}
    # From the second step on, gradients reach W_down and A, whose product with a zero matrix is the first offset.
    for _ in range(2):
        train_step([next_step_input(session, optimizer, batches, 1.0)])
    moved = {name for name, p in session.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(session.trainables)


@pytest.mark.parametrize(("method", "family"), runs_of_methods())
def test_loss_falls_on_a_fixed_batch(make_config, family, method):
    rates = dict.fromkeys(METHODS[method].rates.values(), 1e-2)
    session, optimizer, batches = one_step(make_config(family, method, **rates, model_dropout=0))
    fixed = next(batches)
    losses = [float(train_step([next_step_input(session, optimizer, iter([fixed]), 1.0)])[0].loss) for _ in range(20)]
    assert losses[-1] < losses[0] - 0.05


@pytest.mark.parametrize(("method", "family"), runs_of_methods(trained=False))
def test_saved_and_loaded_adapters_predict_the_same(make_config, family, method, tmp_path):
    config = make_config(family, method, scoring="likelihood")
    record = run(config)
    session = load(str(tmp_path / "results" / "runs" / record["run_id"]))
    trained = read_weights(tmp_path / "results" / "runs" / record["run_id"])
    assert {name: tuple(p.shape) for name, p in session.trainables.items()} == {
        name: tuple(t.shape) for name, t in trained.items()
    }
    assert all(torch.equal(p, trained[name]) for name, p in session.trainables.items())
    test = load_data(session.task, config).test
    assert evaluate(session, session.codec.encode(test))[0] == record["test"]
    predictions = (tmp_path / "results" / "runs" / record["run_id"] / "predictions.jsonl").read_text().splitlines()
    assert session.answer([e.source for e in test]) == [json.loads(line)["prediction"] for line in predictions]


def test_the_released_dept_checkpoint_fills_our_dept(make_config, shared):
    """DePT's cola adapter (T5-base, m = 80, r = 15, s = 256): no tensor left over, none missing, values as released."""
    folder = shared / "checkpoints" / "dept" / "cola"
    with torch.device("meta"):
        model = transformers.T5ForConditionalGeneration(T5_BASE)
    config = resolve(
        {
            "task": "cola",
            "method": "dept",
            "prompt_len": 80,
            "rank": 15,
            "protocol": "official",
            "prompt_init": "random",
        }
    )
    model = config.method_options.apply(model.requires_grad_(False), None)
    hook = model.encoder.embed_tokens.to_empty(device="cpu")
    restore_adapter(model, folder)
    released = read_weights(folder)
    assert torch.equal(hook.prompt, released["prompt_embeddings"])
    assert torch.equal(hook.offset.a, released["prompt_encoder.lora_embedding_A"])
    assert torch.equal(hook.offset.b, released["prompt_encoder.lora_embedding_B"])
    assert hook.offset.scale == pytest.approx(8 / 15**0.5)
    ids = torch.tensor([[*range(32128, 32128 + 80), 5, 6]])
    offset = hook(ids)[0, 80:] - hook.base.weight[torch.tensor([5, 6])]
    expected = (
        8 / 15**0.5 * (released["prompt_encoder.lora_embedding_A"][:2] @ released["prompt_encoder.lora_embedding_B"])
    )
    torch.testing.assert_close(offset, expected, rtol=1e-3, atol=1e-2)


def test_lora_prints_no_warning_of_other_libraries(make_config, recwarn):
    from adept.training.session import open_session

    open_session(make_config(method="lora"))
    assert not [warning for warning in recwarn if issubclass(warning.category, FutureWarning)]
