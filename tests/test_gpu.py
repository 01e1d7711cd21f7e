"""On a CUDA GPU: every method computes what it computes on the CPU, in every precision, compiled or not; runs, stacks
and generation.

python -m pytest -m gpu --show-capture=no
"""

import math

import pytest
import torch
from conftest import FAMILIES, runnable

from adept.data.batches import make_batch
from adept.data.dataset import load_data
from adept.methods import METHODS
from adept.training import loop
from adept.training.evaluation import predict
from adept.training.loop import run, train_runs
from adept.training.optim import make_optimizer, parameter_groups
from adept.training.session import open_session, open_sessions
from adept.training.stack import Stack
from adept.training.step import StepInput, train_step

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

TRAINED = [name for name, method in METHODS.items() if method.rates]
RATES = {"prompt_lr": 0.03, "offset_lr": 1e-2, "scoring": "likelihood"}


def opened(config):
    """A session whose trained parameters have left their zeros, the same on every device, and its encoded training
    rows.
    """
    session = open_session(config)
    with torch.no_grad():
        for parameter in session.trainables.values():
            wave = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64)).view(parameter.shape)
            parameter.add_((0.05 * wave).to(parameter))
    session.model.train()
    return session, session.codec.encode(load_data(session.task, session.config).train)


def loss_and_gradients(config, rows=6):
    session, examples = opened(config)
    torch.manual_seed(0)
    (loss,) = Stack([session]).losses([make_batch(session.codec, examples[:rows]).inputs])
    gradients = torch.autograd.grad(loss, list(session.trainables.values()))
    return loss.item(), torch.cat([gradient.flatten().cpu().double() for gradient in gradients])


def without_dropout(method):
    return {"model_dropout": 0, **({"lora_dropout": 0} if "lora_dropout" in METHODS[method].own_options() else {})}


@pytest.mark.parametrize(
    ("precision", "tolerance", "angle"), [("fp32", 1e-4, 1e-5), ("tf32", 1e-2, 1e-3), ("bf16", 5e-2, 2e-2)]
)
@pytest.mark.parametrize(("method", "family"), runnable(TRAINED))
def test_loss_and_gradients_are_the_cpus(make_config, monkeypatch, family, method, precision, tolerance, angle):
    # Every device's generator draws numbers of its own, so a pass (diff pruning's masks) gets the CPU's on each device.
    monkeypatch.setattr(torch, "rand_like", lambda like: torch.rand(like.shape).to(like))
    here = loss_and_gradients(make_config(family, method, device="cpu", **without_dropout(method)))
    there = loss_and_gradients(
        make_config(family, method, device=DEVICE, precision=precision, **without_dropout(method))
    )
    assert there[0] == pytest.approx(here[0], rel=tolerance)
    assert torch.cosine_similarity(here[1], there[1], dim=0) > 1 - angle


def steps_of_several_shapes(configs):
    """The losses of stacked training steps, and how far each trained parameter has moved after them."""
    sessions = open_sessions(configs)
    optimizers = [
        make_optimizer(parameter_groups(session.model.train(), session.method.learning_rates()), session.config)
        for session in sessions
    ]
    parameters = [p for session in sessions for p in session.trainables.values()]
    starts = [p.detach().clone() for p in parameters]
    rows = sessions[0].codec.encode(load_data(sessions[0].task, configs[0]).train)
    rows.sort(key=lambda row: len(row.source_ids))
    inputs = [
        [
            StepInput(session, optimizer, (make_batch(session.codec, some),), 1.0)
            for session, optimizer in zip(sessions, optimizers, strict=True)
        ]
        for some in (rows[:4], rows[10:14], rows[-2:])
    ]
    assert len({step.batches[0].inputs["input_ids"].shape for step, *_ in inputs}) == len(inputs)
    stack = Stack(sessions)
    losses = [result.loss for steps in inputs * 4 for result in train_step(steps, stack)]
    moved = [(p.detach() - start).norm() for p, start in zip(parameters, starts, strict=True)]
    return torch.stack(losses).tolist(), torch.stack(moved).tolist()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_steps_are_plain_steps(make_config, family, runs, precision):
    """Several shapes, each met again after the others."""
    fields = {"device": DEVICE, "precision": precision, "model_dropout": 0, "max_source_len": 72}
    fields |= {"prompt_lr": 1e-3, "offset_lr": 1e-3, "eps": 1e-2}
    made = []
    for compile in (False, True):
        torch._dynamo.reset()
        configs = [make_config(family, "adept", seed=seed, compile=compile, **fields) for seed in range(runs)]
        made.append(steps_of_several_shapes(configs))
    for plain, compiled in zip(*made, strict=True):
        assert compiled == pytest.approx(plain, rel=1e-4 if precision == "fp32" else 0.1)


@pytest.mark.parametrize("method", ["pt", "dept", "adept", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_generation_and_likelihood_say_what_they_say_on_the_cpu(make_config, family, method):
    for scoring in ("generate", "likelihood"):
        said = []
        for device in ("cpu", DEVICE):
            session, rows = opened(make_config(family, method, device=device, scoring=scoring))
            said.append(predict(session, rows[:12]))
        assert said[0] == said[1]


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("method", ["pt", "dept", "adept", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_from_start_to_record(make_config, family, method, precision):
    rates = {name: value for name, value in RATES.items() if name == "scoring" or name in METHODS[method].own_options()}
    record = run(make_config(family, method, device=DEVICE, precision=precision, **rates))
    assert record["provenance"]["device"] == torch.cuda.get_device_name() and record["peak_memory_bytes"] > 0
    assert all(math.isfinite(entry["train_loss"]) for entry in record["history"])


def test_stacked_runs_are_separate_runs(make_config, tmp_path):
    common = {"device": DEVICE, "model_dropout": 0, "eps": 1e-2, **RATES}
    configs = [make_config("t5", "adept", seed=seed, **common) for seed in range(3)]
    for config, record in zip(configs, train_runs([(config, None) for config in configs]), strict=True):
        alone = run(config.replace(results_dir=str(tmp_path / "alone")))
        for ours, theirs in zip(record["history"], alone["history"], strict=True):
            assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-3)


def test_a_run_goes_on_where_it_was_stopped(make_config, tmp_path, monkeypatch):
    """Within the noise of two runs: AdamW's moments and the device's random generator come back."""
    fields = {"device": DEVICE, "steps": 6, "eval_every": 3, "save_every": 1, "bottleneck_dropout": 0.1, **RATES}
    plain = run(make_config("t5", "adept", **fields, results_dir=str(tmp_path / "plain")))
    config, original, steps = make_config("t5", "adept", **fields), loop.train_step, []

    def dying(*arguments):
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "train_step", dying)
        run(config)
    record = run(config)
    assert record["provenance"]["resumed"][0]["step"] == 4
    for ours, theirs in zip(record["history"], plain["history"], strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-3)
