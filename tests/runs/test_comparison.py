"""A finished run is a hit only where it was made from what is asked for."""

import json
import shutil
from pathlib import Path

import pytest
from pair import Killed, before_step, kill
from safetensors.torch import load_file, save_file
from task_files import joke_rows, write_rows

from adept.base.errors import UserError
from adept.config.identities import base_identity
from adept.data.dataset import SUMMARIES, load_data
from adept.runs.comparison import differences
from adept.runs.record import write_record
from adept.serving.load import load
from adept.training.loop import run


@pytest.fixture
def done(make_config):
    """(config, record) of a finished run."""
    config = make_config(steps=2)
    return config, run(config)


def without(record, *names):
    for name in names:
        record["provenance"].pop(name)
    return record


def test_an_unchanged_run_is_a_hit(done):
    config, record = done
    assert differences(config, record) == [] and run(config) == record
    assert set(record["provenance"]["data_files"]) == {"train", "validation"}


def test_changed_rows_are_refused_by_every_way_to_a_record(write_task, train_task_file):
    path = write_task()
    assert train_task_file(path)[0] == 0
    write_rows(path.parent / "train.csv", [{**row, "title": "Another"} for row in joke_rows([0, 1], 12)])
    code, _, err = train_task_file(path)
    assert code == 2 and "its data were others (train of task 'jokes')" in err and "--rerun" in err
    assert "--results_dir ANOTHER" in err and len(err.strip().splitlines()) == 1


def test_a_hubs_data_set_that_has_moved_on_is_compared_by_its_rows(make_config, monkeypatch):
    rows = [{"idx": n, "sentence1": f"Row {n}.", "sentence2": "A row.", "label": n % 2} for n in range(24)]
    commit = "a" * 40
    monkeypatch.setattr("adept.data.sources.present_commit", lambda *_: commit)
    monkeypatch.setattr("adept.data.sources.load_hub_rows", lambda *_: rows)
    config = make_config(data_dir=None, steps=2)
    record = run(config)
    assert set(record["provenance"]["data_files"].values()) == {f"hub:nyu-mll/glue/rte@{commit}"}
    commit = "b" * 40  # only its card has changed
    assert differences(config, record) == []
    commit, rows = "c" * 40, [{**row, "sentence1": f"Another {row['idx']}."} for row in rows]
    assert differences(config, record) == ["its data were others (train, validation of task 'rte')"]
    commit = None  # no hub answers
    assert differences(config, record) == []


def test_rerun_moves_the_old_record_aside(write_task, train_task_file):
    path = write_task()
    train_task_file(path)
    write_rows(path.parent / "train.csv", [{**row, "title": "Another"} for row in joke_rows([0, 1], 12)])
    results = path.parent / "results"
    (old,) = (results / "runs").glob("*.json")
    before = json.loads(old.read_text())
    code, out, _ = train_task_file(path, rerun=None)
    assert code == 0 and out
    assert json.loads((results / "replaced" / f"{old.stem}.1.json").read_text()) == before
    assert (results / "replaced" / f"{old.stem}.1" / "adapter.safetensors").is_file()
    after = json.loads(old.read_text())
    assert after["provenance"]["data_fingerprint"] != before["provenance"]["data_fingerprint"]
    assert train_task_file(path, rerun=None)[0] == 0  # nothing differs now
    assert not (results / "replaced" / f"{old.stem}.2.json").exists()


def test_the_same_task_file_in_another_folder_has_other_data(write_task, train_task_file, tmp_path):
    path = write_task()
    train_task_file(path)
    other = tmp_path / "elsewhere"
    other.mkdir()
    for file in ("task.yaml", "train.csv", "validation.csv", "test.csv"):
        shutil.copy(tmp_path / file, other / file)
    assert train_task_file(other / "task.yaml")[0] == 0  # the same rows
    write_rows(other / "test.csv", joke_rows([0, 1], 8))
    code, _, err = train_task_file(other / "task.yaml")
    assert code == 2 and "test of task 'jokes'" in err


def test_fixtures_are_not_the_real_data(make_config):
    config = make_config(steps=2, data_dir="fixtures")
    run(config)
    with pytest.raises(UserError, match=r"its data were others \(train, validation of task 'rte'\)"):
        run(make_config(steps=2))


def test_files_that_differ_in_form_alone_are_the_same_data(done, data_dir, tmp_path):
    config, record = done
    (tmp_path / "copy" / "rte").mkdir(parents=True)
    for split in ("train", "validation"):
        text = (Path(data_dir) / "rte" / f"{split}.jsonl").read_text()
        (tmp_path / "copy" / "rte" / f"{split}.jsonl").write_text(text + "\n")
    assert differences(config.replace(data_dir=str(tmp_path / "copy")), record) == []


def test_rows_are_read_once_for_many_older_records_and_never_for_newer_ones(done, monkeypatch):
    config, record = done
    reads = []
    monkeypatch.setattr("adept.data.dataset.load_data", lambda *a: reads.append(1) or load_data(*a))
    SUMMARIES.clear()
    assert differences(config, record) == [] and reads == []
    older = without(record, "data_files", "base_model")
    assert differences(config, older) == differences(config.replace(seed=7), older)[1:] == [] and reads == [1]


def test_an_option_that_was_recorded_with_another_value(done):
    config, record = done
    record["config"]["eval_every"] = 500
    write_record(config.results_dir, record)
    with pytest.raises(UserError, match="--eval_every 500, not 2"):
        run(config)


def test_an_option_that_the_record_lacks_is_younger_than_it(done):
    config, record = done
    del record["config"]["group_by_length"]
    assert differences(config, record) == []


def test_places_may_change(done, tmp_path):
    config, record = done
    assert differences(config.replace(eval_batch_size=2, log_every=1, device="auto"), record) == []


def test_another_tokenizer_in_the_same_base_folder(make_config, model_folders, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(model_folders["t5"], folder)
    config = make_config(steps=2, model=str(folder))
    record = run(config)
    assert record["provenance"]["base_model"].startswith("base@")
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("a", "b", 1))  # of the same size: the id does not change
    base_identity.cache_clear()
    with pytest.raises(UserError, match=r"the files of its base model .* were others"):
        run(config)


def test_a_newer_revision_on_the_hub(done, monkeypatch):
    config, record = done
    record = without(record, "base_model")
    record["provenance"]["model_revision"] = "a" * 40
    monkeypatch.setattr("adept.runs.comparison.cached_commit", lambda *_: "b" * 40)
    (change,) = differences(config, record)
    assert "of revision aaaa" in change and "not bbbb" in change


def test_the_adapter_that_it_started_from_was_another(done, make_config, tmp_path):
    parent, _ = done
    config = make_config(steps=2, init_from=parent.run_id, seed=7)
    record = run(config)
    assert differences(config, record) == []
    other = make_config(steps=2, seed=9)
    run(other)
    runs = tmp_path / "results" / "runs"
    shutil.copy(runs / other.run_id / "adapter.safetensors", runs / parent.run_id / "adapter.safetensors")
    (change,) = differences(config, record)
    assert "the adapter that it started from" in change


def test_an_adapter_of_another_base_of_the_same_shape_is_refused(trained, model_folders, make_config, tmp_path):
    folder = tmp_path / "other-t5"
    shutil.copytree(model_folders["t5"], folder)
    weights = load_file(folder / "model.safetensors")
    changed = {name: tensor + 0.01 for name, tensor in weights.items()}
    save_file(changed, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="was trained on the base model"):
        run(make_config(model=str(folder), init_from=str(trained)))
    with pytest.raises(UserError, match="was trained on the base model"):
        load(str(trained), model=str(folder))


def test_a_copy_of_the_base_elsewhere_is_the_same_base(trained, model_folders, tmp_path):
    shutil.copytree(model_folders["t5"], tmp_path / "moved")
    assert len(load(str(trained), model=str(tmp_path / "moved"), precision="bf16").answer(["a", "b"])) == 2


def test_scoring_both_ways_is_not_swallowed(done):
    config, _ = done
    with pytest.raises(UserError, match="--compare_scoring"):
        run(config.replace(compare_scoring=True))


def test_a_checkpoint_of_other_options_is_not_gone_on_from(make_config, monkeypatch):
    config = make_config(save_every=1)
    with pytest.raises(Killed), before_step(3, kill):
        run(config)
    monkeypatch.setattr("adept.training.resume.changed_options", lambda *_: iter(["it has --eval_every 500, not 2"]))
    with pytest.raises(UserError, match="--eval_every 500, not 2"):
        run(config)
