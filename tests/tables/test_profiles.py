"""The profile fast: what it sets on a machine, in a sweep and in a single run."""

import pytest
from conftest import ROOT

from adept.base.errors import UserError
from adept.commands.main import main
from adept.commands.train import with_profile
from adept.models.precision import cpu_computes_bf16
from adept.tables.table_file import load_table, profile_flags, read_profile

GPU = {"precision": "bf16", "eval_batch_size": 256}


@pytest.fixture
def machine(monkeypatch):
    """machine(gpu=..., bf16=...): whether it has a GPU, and a CPU with bf16 arithmetic."""

    def has(*, gpu: bool, bf16: bool) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
        monkeypatch.setattr("adept.models.precision.cpu_computes_bf16", lambda: bf16)

    return has


@pytest.mark.parametrize(
    ("gpu", "bf16", "device", "fields"),
    [
        (True, False, "auto", GPU),
        (True, True, "cpu", {"precision": "bf16"}),
        (False, True, "auto", {"precision": "bf16"}),
        (False, False, "auto", {}),
        (False, True, "mps", {}),
        (False, False, "cuda:1", GPU),
    ],
)
def test_fast_sets_what_the_machine_computes(machine, gpu, bf16, device, fields):
    machine(gpu=gpu, bf16=bf16)
    assert read_profile("fast", device).fields == fields


def test_a_fast_table_searches_what_the_table_searches_and_says_so(machine, tmp_path):
    machine(gpu=True, bf16=False)
    path, results = ROOT / "configs" / "table12.yaml", {"results_dir": str(tmp_path)}
    plain, fast = (load_table(path, results, profile) for profile in (None, "fast"))
    assert len(fast.runs()) == len(plain.runs()) and fast.seeds == plain.seeds
    assert {(run.config.precision, run.config.compile) for run in fast.runs()} == {("bf16", False)}
    assert fast.file_name == "table12-fast" and fast.common_overrides["precision"] == "bf16"


def test_flags_are_above_the_profile_in_a_single_run(machine):
    machine(gpu=True, bf16=False)
    assert profile_flags("fast", {"task": "rte", "precision": "fp32"}) == {"eval_batch_size": 256}
    machine(gpu=False, bf16=True)
    assert profile_flags("fast", {"task": "rte"}) == {"precision": "bf16"}


def test_a_profile_gives_a_single_run_no_option_that_its_method_lacks():
    assert "offset_lr" not in profile_flags("laptop", {"method": "pt"})
    assert profile_flags("laptop", {"method": "adept"})["offset_lr"] == "1e-3"
    assert profile_flags("laptop", {})["model"] == "smollm2-135m"
    assert "model" not in profile_flags("laptop", {"model": "t5-3b"})


def test_train_prints_what_the_profile_sets(machine, capsys):
    machine(gpu=False, bf16=False)
    assert with_profile("fast", {"task": "rte"}) == {"task": "rte"}
    machine(gpu=True, bf16=False)
    assert with_profile("fast", {"task": "rte"}) == {"task": "rte", **GPU}
    assert capsys.readouterr().err.splitlines() == [
        "profile fast: changes nothing on this machine",
        "profile fast: eval_batch_size = 256, precision = bf16",
    ]
    assert main(["train", "--task", "rte", "--profile", "fats"]) == 2
    assert "unknown profile 'fats'; did you mean 'fast'?" in capsys.readouterr().err


def test_an_unknown_profile_key_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("adept.base.paths.ROOT", tmp_path)
    (tmp_path / "configs" / "profiles").mkdir(parents=True)
    (tmp_path / "configs" / "profiles" / "odd.yaml").write_text("gpus: {precision: bf16}\n")
    with pytest.raises(UserError, match=r"unknown key 'gpus'; did you mean 'gpu'\?"):
        read_profile("odd")


def test_bf16_arithmetic_is_read_from_the_features_of_the_cpu(tmp_path):
    (tmp_path / "with").write_text("flags\t\t: fpu avx512_bf16 amx_tile\n")
    (tmp_path / "without").write_text("flags\t\t: fpu avx512f avx512_vnni\n")
    assert cpu_computes_bf16(tmp_path / "with") and not cpu_computes_bf16(tmp_path / "without")
    assert not cpu_computes_bf16(tmp_path / "none")
