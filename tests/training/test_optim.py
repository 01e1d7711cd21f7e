"""The schedule against transformers', parameter groups as a partition, AdamW against its formula."""

import pytest
import torch
import transformers
from torch import nn

from adept.config.layers import resolve
from adept.training.optim import make_optimizer, parameter_groups, schedule, set_rates

RATES = {r".*\.prompt": 0.3, r".*\.offset\..*": 1e-4}


class Tiny(nn.Module):
    """The names that ADePT's parameters have, beside a frozen one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Module()
        self.embed.prompt = nn.Parameter(torch.randn(3, 4))
        self.embed.offset = nn.Linear(4, 2)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


@pytest.mark.parametrize(("warmup", "steps"), [(0, 7), (3, 10), (10, 10), (12, 10), (5, 1)])
@pytest.mark.parametrize("name", ["linear", "constant"])
def test_schedule_is_the_one_of_transformers(name, warmup, steps):
    multiplier = schedule(resolve({"task": "rte", "schedule": name, "warmup_steps": warmup, "steps": steps}))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = (
        transformers.get_linear_schedule_with_warmup(optimizer, warmup, steps)
        if name == "linear"
        else transformers.get_constant_schedule_with_warmup(optimizer, warmup)
    )
    for step in range(steps + 3):
        assert multiplier(step) == pytest.approx(reference.get_last_lr()[0], abs=1e-12), step
        optimizer.step()
        reference.step()


def test_groups_are_a_partition_of_what_is_trained():
    model = Tiny()
    groups = parameter_groups(model, RATES)
    assert [(group["name"], group["lr"]) for group in groups] == [(r".*\.prompt", 0.3), (r".*\.offset\..*", 1e-4)]
    assert [[id(p) for p in group["params"]] for group in groups] == [
        [id(model.embed.prompt)],
        [id(model.embed.offset.weight), id(model.embed.offset.bias)],
    ]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({r".*\.prompt": 0.3}, r"embed\.offset\.weight matches 0 "),
        ({r".*\.prompt": 0.3, r".*\.offset": 1e-4}, r"embed\.offset\.weight matches 0 "),  # no full match
        ({**RATES, r"embed\..*": 0.1}, r"embed\.prompt matches 2 "),
        ({**RATES, r".*\.lora_A": 0.1}, r"no trainable parameter matches .*lora_A"),
        ({**RATES, r"frozen\..*": 0.1}, r"no trainable parameter matches .*frozen"),
    ],
    ids=["unmatched", "partly matched", "matched twice", "empty", "only frozen ones"],
)
def test_what_is_no_partition_raises(patterns, message):
    with pytest.raises(ValueError, match=message):
        parameter_groups(Tiny(), patterns)


def test_adamw_with_two_rates_equals_its_formula():
    config = resolve(
        {
            "task": "rte",
            "weight_decay": 0.1,
            "eps": 1e-3,
            "beta1": 0.8,
            "beta2": 0.9,
        }
    )
    model = Tiny()
    rates = {r".*\.prompt": 0.2, r".*\.offset\..*": 0.01}
    optimizer = make_optimizer(parameter_groups(model, rates), config)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    expected = {name: p.detach().double() for name, p in trained.items()}
    first = {name: torch.zeros_like(p) for name, p in expected.items()}
    second = {name: torch.zeros_like(p) for name, p in expected.items()}

    for step, multiplier in enumerate((0.5, 1.0, 0.25), 1):
        set_rates(optimizer, multiplier)
        for name, parameter in trained.items():
            parameter.grad = torch.randn_like(parameter)
            gradient, rate = parameter.grad.double(), multiplier * (0.2 if name == "embed.prompt" else 0.01)
            first[name] = 0.8 * first[name] + 0.2 * gradient
            second[name] = 0.9 * second[name] + 0.1 * gradient**2
            unbiased, scale = first[name] / (1 - 0.8**step), (second[name] / (1 - 0.9**step)).sqrt()
            expected[name] = expected[name] * (1 - rate * 0.1) - rate * unbiased / (scale + 1e-3)
        optimizer.step()

    for name, parameter in trained.items():
        torch.testing.assert_close(parameter.detach().double(), expected[name], rtol=1e-5, atol=1e-6)


def test_set_rates_multiplies_each_groups_own_peak():
    optimizer = make_optimizer(parameter_groups(Tiny(), RATES), resolve({"task": "rte"}))
    for multiplier in (0.5, 0.0, 1.0):  # of the peak, not of the rate before
        set_rates(optimizer, multiplier)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.3 * multiplier, 1e-4 * multiplier])


def transformers4_step(parameter, gradient, first, second, step, rate, config):
    """One update of transformers 4's AdamW, as its source has it: eps before the bias correction, decay at the end."""
    first.mul_(config.beta1).add_(gradient, alpha=1 - config.beta1)
    second.mul_(config.beta2).addcmul_(gradient, gradient, value=1 - config.beta2)
    denominator = second.sqrt().add_(config.eps)
    step_size = rate * (1 - config.beta2**step) ** 0.5 / (1 - config.beta1**step)
    parameter.addcdiv_(first, denominator, value=-step_size)
    parameter.add_(parameter, alpha=-rate * config.weight_decay)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_released_adamw_equals_transformers_4(weight_decay):
    flags = {"task": "rte", "adamw": "transformers4", "weight_decay": weight_decay, "eps": 1e-3, "beta2": 0.999}
    config, model = resolve(flags), Tiny().double()
    optimizer = make_optimizer(parameter_groups(model, RATES), config)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    expected = {name: p.detach().clone() for name, p in trained.items()}
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in expected.items()}
    for step in range(1, 31):
        set_rates(optimizer, multiplier := 1 / step)
        for name, parameter in trained.items():
            parameter.grad = 1e-3 * torch.randn_like(parameter)  # near eps, where it matters
            rate = multiplier * (0.3 if name == "embed.prompt" else 1e-4)
            transformers4_step(expected[name], parameter.grad, *moments[name], step, rate, config)
        if step == 11:  # resumed: moments and counts are restored, groups stay
            state, optimizer = optimizer.state_dict(), make_optimizer(parameter_groups(model, RATES), config)
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state["state"]})
            set_rates(optimizer, multiplier)
        optimizer.step()
        for name, parameter in trained.items():
            torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-12, atol=1e-14)


def test_epsilon_of_the_released_adamw_is_larger_at_first():
    """In torch's form: 32 times eps at step 1, 10 at 10, 3.2 at 100 with beta2 0.999."""
    model = Tiny()
    optimizer = make_optimizer(parameter_groups(model, RATES), resolve({"task": "rte", "protocol": "official"}))
    for step in range(1, 101):
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        for number, factor in ((1, 31.6), (10, 10.0), (100, 3.24)):
            if step == number:
                assert [group["eps"] / 1e-6 for group in optimizer.param_groups] == pytest.approx(
                    [factor] * 2, rel=1e-2
                )
