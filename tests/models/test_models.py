"""Loading: in which numbers weights and buffers come, and that nothing of a trained parameter is lost."""

import shutil

import pytest
import torch
from conftest import FAMILIES

from adept.models.loading import load_model
from adept.models.tiny import make_model
from adept.training.session import open_session


@pytest.fixture
def stored_bf16(model_folders, tmp_path):
    """stored_bf16(family): the tiny model of that family, saved in bf16."""

    def make(family: str) -> str:
        folder = tmp_path / f"bf16-{family}"
        shutil.copytree(model_folders[family], folder)
        (folder / "model.safetensors").unlink()
        make_model(family).to(torch.bfloat16).save_pretrained(folder)
        return str(folder)

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bf16_model_is_loaded_as_it_is_stored_and_buffers_keep_their_digits(stored_bf16, family):
    folder = stored_bf16(family)
    half, whole = (load_model(folder, precision=precision)[0] for precision in ("bf16", "fp32"))
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in whole.parameters()} == {torch.float32}
    assert all(torch.equal(a.float(), b) for a, b in zip(half.parameters(), whole.parameters(), strict=True))
    expected = dict(make_model(family).named_buffers())  # rotary frequencies, tables of sines
    assert bool(expected) == (family != "t5")
    for name, buffer in half.named_buffers():
        assert buffer.dtype == torch.float32 and torch.equal(buffer, expected[name])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["adept", "dept", "pt", "pt_table", "full"])
def test_a_session_is_the_same_as_if_loaded_in_fp32(make_config, monkeypatch, stored_bf16, family, method):
    config = make_config(family, method, model=stored_bf16(family), precision="bf16")
    direct = open_session(config)
    with monkeypatch.context() as patch:
        patch.setattr("adept.training.session.load_model", lambda name, **_: load_model(name, precision="fp32"))
        rounded = open_session(config)
    for (name, ours), (_, theirs) in zip(
        direct.model.named_parameters(), rounded.model.named_parameters(), strict=True
    ):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs), name
    assert {p.dtype for p in direct.trainables.values()} == {torch.float32}


def test_the_prompt_of_an_fp32_model_starts_unrounded(make_config):
    session = open_session(make_config("t5", "pt", precision="bf16"))
    (prompt,) = session.trainables.values()
    assert not torch.equal(prompt, prompt.bfloat16().float())
