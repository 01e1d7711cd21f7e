"""What `import adept` gives, and what it costs."""

import subprocess
import sys

import pytest

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
