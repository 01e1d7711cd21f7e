"""The command `bench` on tiny shapes: its files, what does not fit, mistakes."""

import json
import re

import pytest

from adept.bench.profiles import INFERENCE
from adept.bench.report import performance_markdown
from adept.commands.main import main

pytestmark = pytest.mark.usefixtures("tiny_bench")


def test_a_run_of_the_bench_writes_its_figures_beside_those_of_other_runs(tmp_path, capsys):
    out = tmp_path / "performance"
    words = ["bench", "--models", "t5-small", "--repeats", "2", "--out", str(out)]
    compared = ["--profiles", "rte", "--style", "released", "ours", "stacked", "--only", "step", "eval", "cycle"]
    assert main([*words, *compared]) == 0
    (rows,) = [json.loads(out.with_suffix(".json").read_text())["cpu"]["rows"]]
    released, ours, stacked = rows
    assert released["step"]["times_first"] == {"median": 1, "low": 1, "high": 1}
    for entry in rows:
        assert entry["eval"]["same_strings"] == 1.0 and 0 < entry["cycle"]["evaluation_share"] < 1
        assert entry["step"]["examples_per_second"] == pytest.approx(4 * entry["step"]["steps_per_second"])
    assert ours["step"]["padding"] < released["step"]["padding"]
    assert 0 < stacked["step"]["operations"] < 0.5 * ours["step"]["operations"] < released["step"]["operations"]
    assert main([*words, "--profiles", "sst2", "--only", "step", "inference"]) == 0
    whole = json.loads(out.with_suffix(".json").read_text())["cpu"]
    assert [(e["profile"], e["style"]) for e in whole["rows"]] == [
        ("rte", "released"), ("rte", "ours"), ("rte", "stacked"), ("sst2", "released"), ("sst2", "ours"),
    ]  # fmt: skip
    labels = {entry["contestant"]: entry for entry in whole["inference"]}
    assert labels.keys() == INFERENCE.keys() and labels["adept 120/39 folded"]["fold_bytes"] == 4 * 40_000 * 128
    page = out.with_suffix(".md").read_text()
    assert re.search(r"<!-- table: cpu -->\n(.*?)<!-- end -->", page, re.DOTALL).group(1) == performance_markdown(whole)
    assert "measured t5-small, sst2" in capsys.readouterr().err


def test_adapters_in_one_batch_are_timed_beside_one_after_another(tmp_path, monkeypatch):
    for name, value in (("REQUESTS", 4), ("ADAPTERS", (1, 4)), ("NEW_TOKENS", (2,))):
        monkeypatch.setattr(f"adept.bench.adapters.{name}", value)
    out = tmp_path / "performance"
    assert main(["bench", "--models", "t5-small", "--repeats", "1", "--only", "adapters", "--out", str(out)]) == 0
    rows = json.loads(out.with_suffix(".json").read_text())["cpu"]["adapters"]
    assert [row["adapters"] for row in rows] == [1, 4] and {row["requests"] for row in rows} == {4}
    width, prompt_len, bottleneck = 128, 5, 19
    assert {row["adapter_bytes"] for row in rows} == {4 * (width * (prompt_len + 2 * bottleneck + 1) + bottleneck)}
    assert (
        rows[1]["times_sequential"]["median"] > 0 and "| t5-small | 4 | 4 | 2 |" in out.with_suffix(".md").read_text()
    )


def test_what_is_measured_is_saved_before_the_next_is_measured(tmp_path, monkeypatch):
    def measure_model(name, profile, styles, parts, repeats, device, method, clock):
        if method == "dept":
            raise KeyboardInterrupt
        yield {"model": name, "profile": profile, "style": styles[0], "method": method, "skipped": "no memory"}

    monkeypatch.setattr("adept.commands.bench.measure_model", measure_model)
    out = tmp_path / "performance"
    words = ["--models", "t5-small", "--profiles", "rte", "--only", "step", "--style", "ours", "--out", str(out)]
    assert main(["bench", *words, "--method", "pt", "dept", "lora"]) == 130
    assert [row["method"] for row in json.loads(out.with_suffix(".json").read_text())["cpu"]["rows"]] == ["pt"]


def test_a_model_that_does_not_fit_is_left_out_with_the_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("adept.bench.resources.free_memory", lambda _: 1000)
    assert main(["bench", "--models", "t5-small", "--profiles", "rte", "--only", "step"]) == 0
    assert re.search(
        r"- t5-small, rte, ours: not measured, the weights need \d+ GB, 0 GB are free", capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--models", "t5-bas"], "unknown name 't5-bas'; did you mean 't5-base'?"),
        (["--style", "our"], "unknown name 'our'; did you mean 'ours'?"),
        (["--repeats", "0"], "--repeats must be >= 1, not 0"),
        (["--only", "steps"], "did you mean 'step'?"),
        (["--device", "tpu"], "--device tpu cannot be used here"),
    ],
)
def test_mistakes_cost_one_line(words, reason, capsys):
    assert main(["bench", *words]) == 2
    line = capsys.readouterr().err
    assert reason in line and line.count("\n") == 1
