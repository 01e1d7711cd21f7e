"""What a sweep does with runs that are finished already, and with runs whose time its table prints."""

import json

import pytest
from small_sweeps import FIELDS, files, load, records, sweep, write_table

from adept.commands.main import main
from adept.tables.report import build_view
from adept.tables.sweep import Progress, group_into_stacks


def change_records(file, change) -> None:
    for path in (file.parent / "results" / "runs").glob("*.json"):
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))


def test_a_sweep_refuses_finished_runs_of_other_data_and_makes_them_again(tmp_path, capsys):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2]}])
    assert sweep(file) == 0

    def other_data(record):
        record["provenance"] |= {"data_files": {"train": "0"}, "data_fingerprint": "0"}

    change_records(file, other_data)
    capsys.readouterr()
    assert sweep(file) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert "its data were others" in error[-1] and "--rerun" in error[-1]
    assert sweep(file, "--rerun") == 0
    assert len(list((tmp_path / "results" / "replaced").glob("*.json"))) == 2
    assert all(record["provenance"]["data_fingerprint"] != "0" for record in records(file))
    assert sweep(file) == 0


def test_runs_whose_time_is_printed_are_not_stacked(tmp_path):
    grid = [{"method": "pt"}, {"method": "adept", "bottleneck": 2}]
    timed = load(write_table(tmp_path, grid, rows=["method"], bottleneck=2)).runs()
    assert len(group_into_stacks(timed, Progress(1), 4, True)) == 1
    file = write_table(tmp_path, [{**entry, "quantities": ["hours"]} for entry in grid], rows=["method"])
    timed = load(file).runs()
    assert all(run.timed for run in timed) and len(group_into_stacks(timed, Progress(1), 4, True)) == 2


def test_a_stacked_run_has_no_hours_and_is_made_again_where_they_are_asked_for(tmp_path, capsys):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2]}])
    assert sweep(file, "--stack", "2") == 0
    assert [record["provenance"]["stacked"] for record in records(file)] == [2, 2]
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "quantities": ["hours"]}))
    assert all(not cell.values for cell in build_view(load(file)).all_cells)
    assert sweep(file) == 2 and "in a stack of 2 runs" in capsys.readouterr().err
    assert sweep(file, "--rerun", "--stack", "2") == 0
    assert not any("stacked" in record["provenance"] for record in records(file))
    assert all(cell.values for cell in build_view(load(file)).all_cells)


def test_a_finished_run_is_mirrored_where_tracking_is_asked_for_later(tmp_path, capsys):
    pytest.importorskip("tensorboardX")
    file = write_table(tmp_path, [{"prompt_lr": [1]}])
    assert sweep(file) == 0 and not files(file, "tensorboard/*")
    for _ in range(2):  # a second time changes nothing
        assert sweep(file, "--track", "tensorboard") == 0
        assert len(files(file, "tensorboard/*")) == 1


def test_wandb_shows_a_finished_run_when_it_is_asked_for_again(tmp_path, monkeypatch, capsys):
    from stand_in_wandb import read_run

    monkeypatch.setenv("WANDB_MODE", "offline")
    words = [word for name, value in FIELDS.items() for word in (f"--{name}", str(value))]
    words += ["--results_dir", str(tmp_path / "results")]
    assert main(["train", *words]) == 0
    assert main(["train", *words, "--track", "wandb"]) == 0
    assert "already done" in capsys.readouterr().err
    (written,) = (tmp_path / "results" / "runs").glob("*/wandb/offline-run-*/*.wandb")
    shown = read_run(written)
    assert {"train/loss", "validation/accuracy"} <= shown.history.keys()
    assert {"test/accuracy", "best_step"} <= shown.summary.keys()
