"""The bench: the released way computes what ours does, what is counted is right; a run of it at tiny shapes, its files and its words."""

import json
import re

import pytest
import torch
from conftest import ROOT
from torch.utils.flop_counter import FlopCounterMode

from adept import bench, loop, models, step

TINY = {
    "t5-small": {"vocab_size": 40_000, "d_model": 128, "d_kv": 32, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0},
    "codegen-350m": {"vocab_size": 40_000, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "resid_pdrop": 0.0},
    "llama3-8b": {
        "vocab_size": 40_000, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The bench's models with their families' shapes made tiny; short texts of little variety."""
    for name, changes in TINY.items():
        family, numbers = models.SHAPES[name]
        monkeypatch.setitem(models.SHAPES, name, (family, {**numbers, **changes}))
    fields = {"max_source_len": 24, "batch_size": 4, "prompt_len": 5, "max_target_len": 4}
    for name in ("rte", "sst2"):
        known = bench.PROFILES[name]
        monkeypatch.setitem(bench.PROFILES, name, bench.Profile((4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 24), known.stands_for, fields=fields))
    monkeypatch.setattr(bench, "validation_size", lambda _: 20)
    torch.manual_seed(0)


def sessions(name, *styles):
    model, tokenizer = bench.base_model(name, CPU)
    return [bench.enter(bench.STYLES[style], model, tokenizer, "rte", name, "cpu")[0] for style in styles]


@pytest.mark.parametrize("name", TINY)
def test_loss_and_gradients_equal_those_of_the_released_way(name):
    """The goal of the speed work's numerics: 1e-5 in fp32 on the same examples."""
    released, ours = sessions(name, "released", "ours")
    rows = bench.synthetic(bench.PROFILES["rte"], 9, ours)
    with torch.no_grad():
        for a, b in zip(released.trainables.values(), ours.trainables.values(), strict=True):
            a.add_(0.1 * torch.randn(a.shape, generator=torch.Generator().manual_seed(0)))
            b.copy_(a)
    (theirs,), (mine,) = (step.Stack([s]).losses([step.make_batch(s.codec, rows).inputs]) for s in (released, ours))
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-5)
    pairs = zip(*(torch.autograd.grad(loss, list(s.trainables.values())) for loss, s in ((theirs, released), (mine, ours))), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * a.abs().max().item())
        assert a.abs().max() > 0


@pytest.mark.parametrize("name", TINY)
def test_both_ways_answer_the_same_strings(name):
    released, ours = sessions(name, "released", "ours")
    rows = bench.synthetic(bench.PROFILES["rte"], 9, ours)
    answers = bench.released_predict(released, rows)
    assert answers == loop.predict(ours, rows)
    assert answers.count("3 632") > len(answers) / 2  # most of the time the random model says "0", and stops


def test_the_released_way_is_padded_and_eager():
    released, ours = sessions("t5-small", "released", "ours")
    rows = bench.synthetic(bench.PROFILES["rte"], 6, ours)
    inputs = released.codec.train_batch(rows)
    assert inputs["input_ids"].shape == (6, 5 + 24) and inputs["labels"].shape == (6, 4)
    assert released.model.config._attn_implementation == "eager" and ours.model.config._attn_implementation == "sdpa"
    causal, _ = sessions("llama3-8b", "released", "ours")
    inputs = causal.codec.train_batch(rows)
    assert inputs["labels"].shape == inputs["input_ids"].shape == (6, 5 + 24 + 4) and "logits_to_keep" not in inputs


def test_synthetic_rows_have_the_profiles_lengths():
    (ours,) = sessions("t5-small", "ours")
    lengths = [len(row.source_ids) for row in bench.synthetic(bench.PROFILES["rte"], 4000, ours)]
    deciles = torch.tensor(lengths, dtype=torch.float).quantile(torch.linspace(0, 1, 11)).tolist()
    assert deciles == pytest.approx(bench.PROFILES["rte"].deciles, abs=1)


@pytest.mark.parametrize("name", TINY)
def test_flops_are_what_torch_counts(name):
    """Forward, the products with weights; torch counts the attention of eager mode, all of a square."""
    model = models.random_model(name).eval()
    model.set_attn_implementation("eager")
    source, target, ids = 13, 3, torch.arange(13)[None]
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        if model.config.is_encoder_decoder:
            models.spare(model)(input_ids=ids, decoder_input_ids=ids[:, :target])
        else:
            model(input_ids=torch.cat([ids, ids[:, : target - 1]], dim=1), logits_to_keep=target)
    weights, attention = models.forward_flops(model.config, source, target)
    if not model.config.is_encoder_decoder:
        tokens = source + target - 1
        attention *= 2 * tokens / (tokens + 1)  # ours counts what a causal query sees
    assert weights + attention == pytest.approx(counted.get_total_flops(), rel=0.02)


def test_times_are_taken_in_turns_and_ratios_within_a_repeat():
    order = []
    bench.in_turns({name: lambda name=name: order.append(name) for name in "abc"}, 3, CPU)
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert bench.ratio([4.0, 9.0, 8.0], [2.0, 3.0, 8.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}


def test_operations_are_counted_without_views():
    x = torch.ones(3, 4, requires_grad=True)
    with bench.Operations() as counted:
        y = (x.view(4, 3).T[:2] * 2).sum()
    assert counted.count == 2
    with bench.Operations() as counted:
        y.backward()
    assert 3 <= counted.count <= 5  # ones, * 2, the slice's zeros and copy


def test_grids_of_the_tables():
    """243 runs and 8.1 million steps for Table 3's ADePT (13 tasks, one seed)."""
    assert bench.totals(bench.GRIDS["Table 3"][1]) == (243, 8_100_000)
    entries = [
        {"model": "t5-base", "profile": name, "style": "ours", "first": "released", "step": {"seconds": 0.1}, "cycle": {"seconds": 110.0}}
        for name, profile in bench.PROFILES.items() if profile.stands_for
    ]  # fmt: skip
    hours = {p["table"]: p["hours"] for p in bench.project(entries)}
    assert hours["Table 3"] == pytest.approx(8.1e6 * 0.11 / 3600)
    assert "Tables 5, 6" not in hours  # T5-3B was not measured
    assert bench.project([e for e in entries if e["profile"] != "mnli"]) == []


def test_a_run_of_the_bench_writes_its_figures_beside_those_of_other_runs(tmp_path, capsys):
    out = tmp_path / "performance"
    words = ["--models", "t5-small", "--repeats", "2", "--out", str(out)]
    assert bench.main([*words, "--profiles", "rte", "--style", "released", "ours", "stacked", "--only", "step", "eval", "cycle"]) == 0
    (rows,) = [json.loads(out.with_suffix(".json").read_text())["cpu"]["rows"]]
    released, ours, stacked = rows
    assert released["step"]["times_first"] == {"median": 1, "low": 1, "high": 1}
    for entry in rows:
        assert entry["eval"]["same_strings"] == 1.0 and 0 < entry["cycle"]["evaluation_share"] < 1
        assert entry["step"]["examples_per_second"] == pytest.approx(4 * entry["step"]["steps_per_second"])
    assert ours["step"]["padding"] < released["step"]["padding"]
    assert 0 < stacked["step"]["operations"] < 0.5 * ours["step"]["operations"] < released["step"]["operations"]
    assert bench.main([*words, "--profiles", "sst2", "--only", "step", "inference"]) == 0
    whole = json.loads(out.with_suffix(".json").read_text())["cpu"]
    assert [(e["profile"], e["style"]) for e in whole["rows"]] == [
        ("rte", "released"), ("rte", "ours"), ("rte", "stacked"), ("sst2", "released"), ("sst2", "ours"),
    ]  # fmt: skip
    labels = {entry["contestant"]: entry for entry in whole["inference"]}
    assert labels.keys() == bench.INFERENCE.keys() and labels["adept 120/39 folded"]["fold_bytes"] == 4 * 40_000 * 128
    page = out.with_suffix(".md").read_text()
    assert re.search(r"<!-- table: cpu -->\n(.*?)<!-- end -->", page, re.DOTALL).group(1) == bench.markdown(whole)
    assert "measured t5-small, sst2" in capsys.readouterr().err


def test_what_does_not_fit_is_told_and_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "free_memory", lambda _: 1000)
    assert bench.main(["--models", "t5-small", "--profiles", "rte", "--only", "step"]) == 0
    assert re.search(r"- t5-small, rte, ours: not measured, the weights need \d+ GB, 0 GB are free", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--models", "t5-bas"], "unknown name 't5-bas'; did you mean 't5-base'?"),
        (["--style", "our"], "unknown name 'our'; did you mean 'ours'?"),
        (["--repeats", "0"], "--repeats must be >= 1, not 0"),
        (["--only", "steps"], "did you mean 'step'?"),
        (["--device", "tpu"], "--device tpu cannot be used here"),
    ],
)
def test_mistakes_cost_one_line(words, told, capsys):
    assert bench.main(words) == 2
    line = capsys.readouterr().err
    assert told in line and line.count("\n") == 1


def test_the_committed_page_is_made_from_its_measurements():
    whole = json.loads((ROOT / "results" / "performance.json").read_text())
    page = (ROOT / "results" / "performance.md").read_text()
    for kind, result in whole.items():
        block = re.search(rf"<!-- table: {kind} -->\n(.*?)<!-- end -->", page, re.DOTALL).group(1)
        assert block == bench.markdown(result), "run: python -m adept.bench --out results/performance"
