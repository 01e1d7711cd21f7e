"""The loop end to end on tiny models: repeatability, selection, records, evaluation, what stops a run."""

import dataclasses
import json
import math

import pytest
import torch
from conftest import FAMILIES

from adept.base.errors import UserError
from adept.data.batches import training_batches
from adept.data.dataset import load_data
from adept.data.example import IGNORED, Example
from adept.methods import METHODS
from adept.runs.adapter import read_weights, snapshot
from adept.runs.record import read_record
from adept.tasks import TASKS
from adept.training import evaluation
from adept.training.evaluation import max_new_tokens, predict
from adept.training.loop import run
from adept.training.optim import make_optimizer, parameter_groups
from adept.training.run import Run
from adept.training.session import open_session
from adept.training.step import next_step_input, train_step

RATES = {"prompt_lr": 0.3, "offset_lr": 1e-2}


def stripped(record):
    """A record without what time and place decide."""
    history = [{k: v for k, v in entry.items() if k != "seconds"} for entry in record["history"]]
    drop = {"timing", "peak_memory_bytes", "config", "history"}
    return {k: v for k, v in record.items() if k not in drop} | {"history": history}


@pytest.mark.parametrize("family", FAMILIES)
def test_two_runs_are_bit_identical(make_config, tmp_path, family):
    records, adapters = [], []
    for name in ("first", "second"):
        config = make_config(family, "adept", **RATES, bottleneck_dropout=0.1, results_dir=str(tmp_path / name))
        records.append(run(config))
        adapters.append((tmp_path / name / "runs" / config.run_id / "adapter.safetensors").read_bytes())
    assert stripped(records[0]) == stripped(records[1])
    assert adapters[0] == adapters[1]
    other = run(make_config(family, "adept", **RATES, bottleneck_dropout=0.1, seed=1))
    assert other["history"][0]["train_loss"] != records[0]["history"][0]["train_loss"]


def test_record_and_files_are_as_the_contract_has_them(make_config, tmp_path):
    config = make_config("t5", "adept", eval_every=3, **RATES)
    record = run(config)
    folder = tmp_path / "results" / "runs" / config.run_id
    assert json.loads((tmp_path / "results" / "runs" / f"{config.run_id}.json").read_text()) == record
    assert set(record) >= {
        "schema", "run_id", "status", "config", "trainable_params", "total_params", "param_groups", "history",
        "best_step", "validation", "test", "sizes", "timing", "peak_memory_bytes", "provenance", "truncation",
    }  # fmt: skip
    assert record["status"] == "completed" and record["schema"] == 1
    assert (
        record["trainable_params"]
        == 5 * 32 + 3 * (2 * 32 + 1) + 32
        == sum(g["params"] for g in record["param_groups"].values())
    )
    assert {g["lr"] for g in record["param_groups"].values()} == {0.3, 1e-2}
    assert [entry["step"] for entry in record["history"]] == [3, 4]
    assert record["sizes"] == {"train": 24, "validation": 12, "test": 12}
    assert record["notes"] == ["sizes 24/12/12 differ from the paper's 2490/138/139"]
    assert (
        record["provenance"]["data_origin"] == "local"
        and record["provenance"]["packages"]["torch"] == torch.__version__
    )
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]
    predictions = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    hits = [p["prediction"] in p["references"] for p in predictions]
    assert len(hits) == 12 and 100 * sum(hits) / 12 == pytest.approx(record["test"]["accuracy"])
    assert json.loads((folder / "adapter.json").read_text())["shapes"]["encoder.embed_tokens.prompt"] == [5, 32]


def test_a_finished_run_is_not_run_again(make_config, monkeypatch):
    config = make_config("t5", "pt")
    record = run(config)
    monkeypatch.setattr("adept.training.loop.open_sessions", lambda *_: pytest.fail("ran again"))
    assert run(config) == record


def test_the_first_of_equal_checkpoints_is_tested(make_config, monkeypatch):
    scores = iter([50.0, 70.0, 70.0, 60.0, 11.0])
    weights = []

    def fake(session, _):
        weights.append(snapshot(session.trainables))
        return {"accuracy": next(scores)}, ["0"] * 12

    monkeypatch.setattr("adept.training.run.evaluate", fake)
    config = make_config("t5", "adept", steps=8, **RATES)
    record = run(config)
    assert (
        record["best_step"] == 4 and record["validation"] == {"accuracy": 70.0} and record["test"] == {"accuracy": 11.0}
    )
    for name, tensor in weights[-1].items():  # what the test saw is what validation saw at step 4
        assert torch.equal(tensor, weights[1][name]) and not torch.equal(tensor, weights[3][name])


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_accumulation_sums_to_one_large_batch(make_config, family):
    """Rows of one target length: two batches of 4 give the step of one batch of 8."""
    sessions = []
    for batch_size, grad_accum in ((8, 1), (4, 2)):
        config = make_config(
            family,
            "adept",
            batch_size=batch_size,
            grad_accum=grad_accum,
            model_dropout=0,
            group_by_length=False,
            **RATES,
        )
        session = open_session(config)
        train = session.codec.encode(load_data(session.task, config).train)
        optimizer = make_optimizer(parameter_groups(session.model, session.method.learning_rates()), config)
        batches = training_batches(session.codec, train, config)
        train_step([next_step_input(session, optimizer, batches, 1.0)])
        sessions.append(session)
    for ours, theirs in zip(*(s.trainables.values() for s in sessions), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["zero_shot", "dept", "adept", "lora"])
@pytest.mark.parametrize("task", ["rte", "cb"])
def test_likelihood_equals_scoring_each_label_alone(make_config, family, method, task):
    session = open_session(make_config(family, method, task=task, scoring="likelihood", targets="words"))
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in session.trainables.values():
            parameter.normal_(std=0.3)
    data = session.codec.encode(load_data(session.task, session.config).validation)
    labels = session.task.labels
    predicted = predict(session, data)
    session.model.eval()
    for example, label in zip(data, predicted, strict=True):
        scores = []
        for candidate in labels:
            alone = dataclasses.replace(example, target_ids=tuple(session.codec.target_ids(candidate)))
            batch = session.codec.train_batch([alone])
            scores.append(-session.model(**batch).loss.item() * len(alone.target_ids))
        assert label == labels[max(range(len(labels)), key=scores.__getitem__)]


@pytest.mark.parametrize("family", ["llama", "codegen"])
def test_logits_at_targets_only_give_the_full_loss(make_config, family):
    session = open_session(make_config(family, "adept"))
    session.model.eval()
    examples = session.codec.encode(load_data(session.task, session.config).train[:6])
    batch = session.codec.train_batch(examples)
    labels = torch.full_like(batch["input_ids"], IGNORED)
    for row, example in zip(labels, examples, strict=True):
        start = len(session.codec.prompt_ids) + len(example.source_ids)
        row[start : start + len(example.target_ids)] = torch.tensor(example.target_ids)
    full = session.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    torch.testing.assert_close(session.model(**batch).loss, full)


def test_predictions_do_not_depend_on_the_batch(make_config):
    predictions = []
    for size in (1, 5, 64):
        session = open_session(make_config("llama", "dept", eval_batch_size=size))
        data = session.codec.encode(load_data(session.task, session.config).validation)
        predictions.append(predict(session, data))
    assert predictions[0] == predictions[1] == predictions[2]


def test_a_label_that_goes_on_is_wrong(make_config, monkeypatch):
    """The generated string "00" must not pass as "0" because generation stopped early."""
    session = open_session(make_config("t5", "pt"))
    zero = session.codec.tokenizer("0", add_special_tokens=False).input_ids
    seen = {}

    def generate(generation_config, **arguments):
        seen["max_new_tokens"] = generation_config.max_new_tokens
        return torch.tensor([[0, *zero * generation_config.max_new_tokens]])

    monkeypatch.setattr(session.model, "generate", generate)
    example = session.codec.encode(load_data(session.task, session.config).test[:1])
    assert predict(session, example) == ["0" * (seen["max_new_tokens"] * len(zero))] and seen["max_new_tokens"] >= 3


def test_a_loss_that_is_not_finite_stops_the_run(make_config, tmp_path):
    config = make_config("t5", "adept", prompt_lr=1e30, offset_lr=1e30, steps=6, warmup_steps=0, max_grad_norm=0)
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step \d.*1e\+30.*train:\d+"):
        run(config)
    assert read_record(config.results_dir, config.run_id) is None


def test_dropout_in_the_frozen_model_is_a_switch(make_config):
    losses = {}
    for rate in (None, 0):
        session = open_session(make_config("t5", "pt", model_dropout=rate))
        session.model.train()
        batch = session.codec.train_batch(session.codec.encode(load_data(session.task, session.config).train[:4]))
        torch.manual_seed(0)
        losses[rate] = [session.model(**batch).loss.item() for _ in range(2)]
    assert losses[None][0] != losses[None][1] and losses[0][0] == losses[0][1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["adept", "lora", "full", "pt_table"])
def test_bf16_trains_fp32_parameters_in_a_bf16_model(make_config, family, method):
    config = make_config(family, method, precision="bf16", scoring="likelihood")
    session = open_session(config)
    assert {p.dtype for p in session.trainables.values()} == {torch.float32}
    assert all(p.dtype == torch.bfloat16 for p in session.model.parameters() if not p.requires_grad)
    # Rounded rotary frequencies would shift the phases of far positions.
    assert all(buffer.dtype != torch.bfloat16 for buffer in session.model.buffers())
    assert all(math.isfinite(entry["train_loss"]) for entry in run(config)["history"])


def test_init_from_starts_where_the_other_run_ended(make_config, tmp_path):
    source = run(make_config("t5", "adept", task="rte", **RATES))
    weights = read_weights(tmp_path / "results" / "runs" / source["run_id"])
    seen = []

    original = Run.between_steps

    def spy(self):
        seen.append(snapshot(self.session.trainables))
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "between_steps", spy)
        run(make_config("t5", "adept", task="mrpc", init_from=source["run_id"], **RATES))
    assert all(torch.equal(seen[0][name], weights[name]) for name in weights)
    with pytest.raises(UserError, match=r"does not fit: .*prompt is \[5, 32\], this run needs \[6, 32\]"):
        run(make_config("t5", "adept", prompt_len=6, init_from=source["run_id"]))
    with pytest.raises(UserError, match=r"does not fit: it has, but this method and model lack, .*offset"):
        run(make_config("t5", "pt", prompt_len=5, init_from=source["run_id"]))
    with pytest.raises(UserError, match="no adapter 'nothing'"):
        run(make_config("t5", "adept", init_from="nothing"))


def test_prompt_longer_than_the_models_positions_is_refused(make_config):
    with pytest.raises(UserError, match="exceed the model's 512 positions"):
        open_session(make_config("llama", "pt", prompt_len=500))


def test_free_targets_cannot_be_scored_by_likelihood(make_config):
    with pytest.raises(UserError, match="--scoring likelihood needs a task with labels"):
        run(make_config("t5", "pt", task="stsb", scoring="likelihood"))


@pytest.mark.parametrize("task", ["rte", "mrpc", "stsb", "cola", "sst2", "cb", "boolq", "wic", "movie_reviews"])
@pytest.mark.parametrize("protocol", ["paper", "official"])
def test_every_task_runs_under_both_protocols(make_config, task, protocol):
    record = run(make_config("t5", "adept", task=task, protocol=protocol, steps=1))
    assert set(record["test"]) == set(TASKS[task].metrics) and record["provenance"]["protocol"] == protocol


# Ways of evaluation ---------------------------------------------------------------------------------------------------


def session_with(make_config, monkeypatch, method="adept", **fields):
    """An open session, and the (scoring's function name, batch size) of each of its prediction batches."""
    session = open_session(make_config(*fields.pop("where", ("t5",)), method, **fields))
    calls = []
    for name in ("generate", "most_likely_labels"):
        original = getattr(evaluation, name)

        def counted(session, batch, *rest, name=name, original=original):
            calls.append((name, len(batch["input_ids"])))
            return original(session, batch, *rest)

        monkeypatch.setattr(evaluation, name, counted)
    return session, calls


def test_equal_sources_are_predicted_once_and_answer_alike(make_config, monkeypatch):
    session, calls = session_with(make_config, monkeypatch)
    examples = [Example(str(i), f"sentence: number {i % 3}", "0", ("0",)) for i in range(9)]
    predictions = predict(session, session.codec.encode(examples))
    assert calls == [("generate", 3)]
    assert predictions == predictions[:3] * 3


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_compared_scoring_is_recorded_and_changes_nothing_else(make_config, tmp_path, family):
    plain = run(make_config(family, "adept", **RATES, results_dir=str(tmp_path / "plain")))
    both = run(make_config(family, "adept", **RATES, compare_scoring=True))
    agreement = both.pop("scoring_agreement")
    assert stripped(both) == stripped(plain)
    assert agreement["rows"] == 12 and agreement["generate"] == both["test"] != agreement["likelihood"]
    likelihood = run(make_config(family, "adept", **RATES, scoring="likelihood", steps=0, compare_scoring=True))[
        "scoring_agreement"
    ]
    # What generation gives is no label (random model), what likelihood gives always is: they cannot agree.
    assert likelihood["agreement"] == agreement["agreement"] == 0 and likelihood["generate"] == {"accuracy": 0}


def test_generation_and_likelihood_agree_where_labels_are_all_there_is(make_config, monkeypatch):
    """A model trained on a few rows until it answers with labels: then both ways predict the same."""
    config = make_config(
        "llama", "full", steps=40, lr=3e-3, batch_size=12, eval_every=40, compare_scoring=True, model_dropout=0
    )
    record = run(config)
    assert record["scoring_agreement"]["generate"]["accuracy"] > 0
    assert record["scoring_agreement"]["agreement"] == 100


def test_eval_rows_are_the_first_ones_and_noted(make_config):
    whole, some = (load_data(TASKS["rte"], make_config(eval_rows=rows)) for rows in (None, 5))
    assert some.validation == whole.validation[:5] and some.test == whole.test[:5] and some.train == whole.train
    assert run(make_config(eval_rows=5))["notes"] == ["sizes 24/5/5 differ from the paper's 2490/138/139"]


def test_free_text_is_generated_as_long_as_the_released_code_lets_it(make_config):
    """max_length 20 counts the decoder's start token, so 19 tokens follow; labels get one more than the longest."""
    assert max_new_tokens(open_session(make_config(task="stsb"))) == 19
    labelled = open_session(make_config(task="cb"))
    assert max_new_tokens(labelled) == labelled.codec.max_target_len + 1 == 3
    assert max_new_tokens(open_session(make_config(task="cb", max_new_tokens=7))) == 7


def test_the_network_alone_trains_without_a_prompt(make_config):
    """Table 14: no prompt tokens, so no prompt to have a rate."""
    record = run(make_config("t5", "adept", prompt_len=0))
    assert set(record["param_groups"]) == {
        pattern for pattern, field in METHODS["adept"].rates.items() if field == "offset_lr"
    }
    assert record["trainable_params"] == 2 * 32 * 3 + 3 + 32
