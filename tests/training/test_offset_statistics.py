"""Sizes of embeddings and offsets (Table 2) against numpy on the explicit formula."""

import numpy as np
import pytest
import torch
from explicit_formulas import examples, explicit_inputs, filled_session

from adept.base.errors import UserError
from adept.data.dataset import load_data
from adept.serving.load import load
from adept.training.loop import run
from adept.training.offset_statistics import offset_statistics
from adept.training.session import open_session


@pytest.mark.parametrize("family", ["t5", "llama"])
@pytest.mark.parametrize("method", ["pt", "dept", "adept", "dept_relu"])
def test_statistics_equal_numpy_on_the_explicit_formula(make_config, family, method):
    fields = {"offset_len": 12, "offset_alpha": 8} if method == "dept" else {}
    session = filled_session(make_config, family, method, eval_batch_size=3, **fields)
    session.model.double()
    rows = examples(session, "cola") + examples(session)
    found = offset_statistics(session, rows)

    hook, codec = session.prompted_embedding, session.codec
    longest, pad_id = codec.max_source_len, codec.tokenizer.pad_token_id
    real, everything = {"embeddings": [], "offset": []}, {"embeddings": [], "offset": []}
    for example in rows:
        padded = [*example.source_ids, *[pad_id] * (longest - len(example.source_ids))]
        embeds = hook.base.weight[torch.tensor(padded)].detach().numpy()
        offset = explicit_inputs(session, padded)[len(codec.prompt_ids) :].detach().numpy() - embeds
        for name, vectors in (("embeddings", embeds), ("offset", offset)):
            real[name].append(vectors[: len(example.source_ids)])
            everything[name].append(vectors)

    assert found["tokens"] == sum(len(e.source_ids) for e in rows)
    assert found["released"]["positions"] == longest * len(rows)
    for name in ("embeddings", "offset"):
        if method == "pt" and name == "offset":
            assert name not in found and name not in found["released"]
            continue
        vectors, means = np.concatenate(real[name]), np.abs(np.concatenate(everything[name])).mean(0)
        norms = np.linalg.norm(vectors, axis=1)
        histogram = found[name].pop("norms")
        assert found[name] == pytest.approx(
            {"mean": np.abs(vectors).mean(), "variance": np.abs(vectors).var()}, rel=1e-7
        )
        assert found["released"][name] == pytest.approx({"mean": means.mean(), "std": means.std()}, rel=1e-7)
        assert histogram["counts"] == np.histogram(norms, histogram["edges"])[0].tolist()
        assert sum(histogram["counts"]) == found["tokens"] and len(histogram["edges"]) == 41
        assert histogram["edges"][-1] / 2 <= norms.max() < histogram["edges"][-1]


@pytest.mark.parametrize("method", ["lora", "zero_shot"])
def test_methods_without_a_hook_have_embeddings_of_the_same_size(make_config, method):
    bare, prompted = open_session(make_config("t5", method)), filled_session(make_config, "t5", "pt")
    found, expected = (offset_statistics(session, examples(session)) for session in (bare, prompted))
    assert found["embeddings"] == expected["embeddings"]
    assert found["released"]["embeddings"] == pytest.approx(expected["released"]["embeddings"])
    assert "offset" not in found


def test_dropout_is_off_and_the_mode_stays(make_config):
    session = filled_session(make_config, "t5", "adept", bottleneck_dropout=0.5)
    expected = offset_statistics(session, examples(session))
    session.model.train()
    assert offset_statistics(session, examples(session)) == expected
    assert session.model.training


def test_a_run_records_them_over_its_training_set(make_config, tmp_path):
    config = make_config("t5", "adept", measure_offsets=True, offset_lr=0.1)
    record = run(config)
    session = load(record["run_id"], results_dir=str(tmp_path / "results"))
    train = session.codec.encode(load_data(session.task, config).train)
    assert record["offsets"] == offset_statistics(session, train)
    assert record["offsets"]["offset"]["mean"] > 0
    plain = make_config("t5", "adept", offset_lr=0.1)
    assert plain.run_id != config.run_id and "offsets" not in run(plain)


def test_statistics_need_examples(make_config):
    with pytest.raises(UserError, match="no examples"):
        offset_statistics(filled_session(make_config, "t5", "adept"), [])
