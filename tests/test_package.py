"""What `import adept` gives, and what it costs."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

import adept

HEAVY = ("torch", "transformers", "datasets", "pydantic", "numpy", "wandb")


def test_import_adept_imports_nothing_heavy():
    code = f"import sys, adept; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_configuration_is_made_without_torch():
    code = "import sys, adept; adept.resolve({'task': 'rte'}); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_public_names_are_there():
    from adept.config.layers import resolve
    from adept.serving.load import load
    from adept.training.loop import run

    assert (adept.run, adept.load, adept.resolve) == (run, load, resolve)
    assert all(getattr(adept, name) is not None for name in adept.__all__)
    with pytest.raises(AttributeError, match="module 'adept' has no attribute 'trian'"):
        adept.trian  # noqa: B018


def test_a_run_resolved_trained_and_loaded_through_the_package(make_config, tmp_path):
    config = make_config("t5", "pt")
    record = adept.run(config)
    session = adept.load(record["run_id"], results_dir=str(tmp_path / "results"))
    assert len(session.answer(["sentence1: a sentence2: b"])) == 1


def test_compute_threads_wait_passively_unless_the_user_says_otherwise():
    """OpenMP reads the variable when torch is imported, so it is there before."""
    code = (
        "import os, sys; from adept.commands.main import main; "
        "assert 'torch' not in sys.modules; main(['--help']); print(os.environ['OMP_WAIT_POLICY'])"
    )
    for environment, expected in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        inherited = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**inherited, **environment}, capture_output=True, text=True
        )
        assert done.stdout.split()[-1] == expected, done.stderr
