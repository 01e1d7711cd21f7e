"""Minutes: SmolLM2-135M exported both ways, and tiny folders read by transformers 4.57."""

import json
import subprocess
import sys

import pytest
import torch
from exported import model_folder, of_session, random_adapter, read_elsewhere, reading

from adept.models.bundled import movie_reviews
from adept.serving.export import export
from adept.serving.load import load

pytestmark = pytest.mark.long

OLD = ("transformers==4.57.6", "tokenizers==0.22.2", "huggingface_hub<1")


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    root = tmp_path_factory.mktemp("smollm2")
    return random_adapter(root, "smollm2-135m", "adept", task="movie_reviews", prompt_len=7, bottleneck=8)


@pytest.mark.parametrize("form", ["plain", "peft"])
def test_smollm2_answers_reviews_as_its_run_does(smollm2, tmp_path, form):
    """The LoRA takes 3.2 MB: 16 ranks of 49,152 + 576 numbers."""
    folder, session = export(str(smollm2), tmp_path / form, form=form), load(str(smollm2))
    rows = [json.loads(line) for line in (movie_reviews() / "test.jsonl").read_text().splitlines()[:48]]
    texts = [session.render(0, row) for row in rows]
    _, (read,) = read_elsewhere([{**reading(folder, session, form), "texts": texts}])
    assert read["answers"] == [answer.strip() for answer in session.answer(texts)]
    assert read["ids"] == [
        [*(range(3, 10) if form == "peft" else session.codec.prompt_ids), *example.source_ids]
        for example in session.encode(texts)
    ]
    if form == "peft":
        size = (folder / "adapter_model.safetensors").stat().st_size
        assert 0 <= size - 4 * (8 + 1 + 7) * (49_152 + 576) < 1000


@pytest.fixture(scope="module")
def old_transformers(tmp_path_factory):
    """A folder with transformers 4.57. Skips where the package index does not give it."""
    folder = tmp_path_factory.mktemp("old")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    if subprocess.run([*pip, *OLD], capture_output=True).returncode:
        pytest.skip("the package index has no transformers 4.57.6 for this machine")
    return str(folder)


PLAIN = [("tiny-llama", "adept"), ("GPT2", "adept"), ("GPT2", "dept"), ("tiny-codegen", "adept"),
         ("Gemma3Text", "adept"), ("tiny-t5", "adept"), ("tiny-t5", "pt"), ("tiny-t5", "lora"), ("MT5", "adept"),
         ("LongT5", "adept")]  # fmt: skip


def test_transformers_4_57_answers_as_5_does(old_transformers, tmp_path):
    sessions, cases = [], []
    for model, method in PLAIN:
        adapter = random_adapter(tmp_path / f"{model}-{method}-adapter", model_folder(model, tmp_path), method)
        folder = export(str(adapter), tmp_path / f"{model}-{method}-folder")
        sessions.append(load(str(adapter)))
        cases.append(reading(folder, sessions[-1], "plain"))
    version, found = read_elsewhere(cases, old_transformers)
    assert version == "4.57.6"
    for session, read in zip(sessions, found, strict=True):
        expected = of_session(session)
        logits = torch.tensor(read["logits"])[:, : session.codec.table_rows[1]]
        assert (logits - expected.logits).abs().max() <= 1e-5 * expected.logits.abs().max()
        assert read["answers"] == expected.answers


def test_transformers_4_57_takes_two_tables_for_one(old_transformers, tmp_path):
    """Why --compact is not the default: there is no warning."""
    adapter = random_adapter(tmp_path / "adapter", "tiny-t5", "adept")
    folder, session = export(str(adapter), tmp_path / "out", compact=True), load(str(adapter))
    _, (read,) = read_elsewhere([reading(folder, session, "plain")], old_transformers)
    logits = torch.tensor(read["logits"])[:, : session.codec.table_rows[1]]
    assert (logits - of_session(session).logits).abs().max() > 0.1
