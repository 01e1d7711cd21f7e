"""Three training steps of every method, compared with committed values: what training computes does not drift
unnoticed.

The models' and methods' weights are a closed formula and the batch is written out, so nothing depends on torch's random
numbers, on a tokenizer or on data. float32, CPU, one thread.

python -m pytest tests/training/test_golden.py --write_golden

writes what is computed now into golden.json beside this file, with the packages' versions.
"""

import json
import zlib
from pathlib import Path

import pytest
import torch
from conftest import runs_of_methods

from adept.data.batches import make_batch
from adept.data.example import Example
from adept.methods import METHODS
from adept.runs.provenance import package_version
from adept.training.optim import make_optimizer, parameter_groups, schedule
from adept.training.session import open_session
from adept.training.step import next_step_input, train_step

GOLDEN = Path(__file__).with_name("golden.json")
PACKAGES = ("torch", "transformers", "peft")
DRAWS = ("diff_pruning",)
"""Methods whose steps depend on random numbers."""
STEPS = 3
TOLERANCE = 1e-5
RATES = {"prompt_lr": 3e-2, "offset_lr": 1e-2, "lr": 1e-2}
EPS = 1e-2
"""AdamW's first steps have the gradient's sign, which a processor's last digit decides where the gradient is nothing
but that digit.
"""


@torch.no_grad()
def fill(model: torch.nn.Module) -> None:
    """Every parameter, and what a prompt is made of beside them, from name and shape.

    Norms lie around 1, everything else within 0.3 of 0.
    """
    drawn = [(name, buffer) for name, buffer in model.named_buffers() if ".source." in name]
    for name, parameter in (*model.named_parameters(), *drawn):
        index = torch.arange(parameter.numel(), dtype=torch.float64)
        wave = torch.sin(0.37 * index**2 + zlib.crc32(name.encode()) % 1000).view(parameter.shape)
        parameter.copy_(1 + 0.1 * wave if "norm" in name else 0.3 * wave)


def versions(packages: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def ids(start: int, count: int) -> tuple[int, ...]:
    """Token ids that are no special ones."""
    return tuple(2 + (start + 37 * i) % 300 for i in range(count))


BATCH = [
    Example(str(i), "", "", (), source_ids=ids(11 * i, length), target_ids=(*ids(i, 1 + i % 2), 1))
    for i, length in enumerate((9, 4, 13, 7))
]


def three_steps(config) -> dict:
    """{"losses" of the steps, "norm" of all trained parameters after them}."""
    session = open_session(config)
    fill(session.model)
    optimizer, multiplier = (
        make_optimizer(parameter_groups(session.model, session.method.learning_rates()), config),
        schedule(config),
    )
    session.model.train()
    batch = make_batch(session.codec, BATCH)
    works = [next_step_input(session, optimizer, iter([batch]), multiplier(step)) for step in range(STEPS)]
    losses = [float(step.loss) for work in works for step in train_step([work])]
    norm = (
        torch.stack([parameter.detach().double().square().sum() for parameter in session.trainables.values()])
        .sum()
        .sqrt()
    )
    return {"losses": [float(f"{loss:.8g}") for loss in losses], "norm": float(f"{float(norm):.8g}")}


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("method", "family"), [run for run in runs_of_methods(["t5", "llama"]) if run[0] not in DRAWS])
def test_three_steps_compute_the_golden_values(make_config, one_thread, request, family, method):
    fields = {
        name: value for name, value in {**RATES, "lora_dropout": 0}.items() if name in METHODS[method].own_options()
    }
    computed = three_steps(make_config(family, method, model_dropout=0, steps=STEPS, eps=EPS, **fields))
    name, now = f"{family} {method}", {package: package_version(package) for package in PACKAGES}
    stored = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {"made_with": now, "values": {}}
    if request.config.getoption("--write_golden"):
        values = {**stored["values"], name: computed}
        GOLDEN.write_text(json.dumps({"made_with": now, "values": dict(sorted(values.items()))}, indent=1) + "\n")
        return
    compare(name, computed, stored, now)


def compare(name: str, computed: dict, stored: dict, now: dict[str, str]) -> None:
    """Raises AssertionError that says what moved, which packages differ from those of the golden values, and what to
    do.
    """
    golden = stored["values"].get(name, {"losses": [], "norm": None})
    assert [*computed["losses"], computed["norm"]] == pytest.approx(
        [*golden["losses"], golden["norm"]], rel=TOLERANCE
    ), (
        f"{name}: computed {computed}, golden {golden}. The golden values were made with "
        f"{versions(stored['made_with'])}; this is {versions(now)}. If neither a dependency's "
        "drift nor a bug is behind it and the change is meant, python -m pytest tests/training/test_golden.py "
        "--write_golden writes new values; say in the commit why"
    )


def test_a_dependency_that_changes_the_numbers_is_told(make_config, one_thread, monkeypatch):
    """AdamW of another version, whose steps are a thousandth larger."""
    stored, step = json.loads(GOLDEN.read_text()), torch.optim.AdamW.step

    def other(self, *_):
        for group in self.param_groups:
            group["lr"] *= 1.001
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", other)
    computed = three_steps(make_config("t5", "pt", model_dropout=0, steps=STEPS, eps=EPS, prompt_lr=RATES["prompt_lr"]))
    with pytest.raises(AssertionError, match=r"^t5 pt: computed") as told:
        compare("t5 pt", computed, stored, {"torch": "9.9.9", "transformers": "5.0.0"})
    for part in (
        f"made with {versions(stored['made_with'])}",
        "this is torch 9.9.9, transformers 5.0.0",
        "--write_golden",
        "drift",
    ):
        assert part in str(told.value)
