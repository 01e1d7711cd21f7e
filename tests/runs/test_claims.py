"""One process at a time does a run; a claim vanishes with its process."""

import errno
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

import train
from adept.runs.claim import SILENT_SECONDS, RunClaimed, claim_run, lock
from adept.runs.layout import lock_path, run_folder
from adept.runs.record import finished_record, read_record
from adept.training.loop import run

HOLDER = """
import fcntl, os, platform, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print(os.getpid(), platform.node(), file=file, end="", flush=True)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """holder(run id): another process with that run's lock, until it is killed."""
    processes = []

    def hold(run_id: str) -> subprocess.Popen:
        path = lock_path(str(tmp_path / "results"), run_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", HOLDER, str(path)]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout.readline() == "held\n"
        return processes[-1]

    yield hold
    for process in processes:
        process.kill()
        process.wait()


def runs_of(config) -> list[str]:
    return sorted(path.name for path in (Path(config.results_dir) / "runs").iterdir())


def test_a_claimed_run_is_not_run_twice_and_a_dead_claim_is_taken_over(make_config, holder, monkeypatch, capsys):
    config = make_config("t5", "pt")
    other = holder(config.run_id)
    line = f"run {config.run_id} is being done by process {other.pid} on host {platform.node()}"
    with monkeypatch.context() as patch, pytest.raises(RunClaimed, match=f"^{line}$"):
        patch.setattr("adept.training.run.load_data", lambda *_: pytest.fail("ran"))
        run(config)
    flags = [
        "--task=rte",
        "--method=pt",
        "--steps=4",
        "--eval_every=2",
        "--batch_size=4",
        "--max_source_len=64",
        "--prompt_len=9",
    ]
    places = [f"--{name}={config.get(name)}" for name in ("model", "data_dir", "results_dir")]
    assert train.main([*flags, *places]) == 2
    assert capsys.readouterr().err == f"error: {line}\n"
    assert runs_of(config) == [f".{config.run_id}.lock"]

    other.kill()
    other.wait()
    assert run(config)["status"] == "completed"
    assert runs_of(config) == [config.run_id, f"{config.run_id}.json"]


def test_a_run_that_another_process_finished_meanwhile_is_not_run(make_config, monkeypatch):
    config = make_config("t5", "pt")
    record = run(config)
    monkeypatch.setattr(
        "adept.training.run.finished_record", lambda *_: None
    )  # the look before the claim came too early
    monkeypatch.setattr("adept.training.run.load_data", lambda *_: pytest.fail("ran again"))
    assert run(config) == record
    assert runs_of(config) == [config.run_id, f"{config.run_id}.json"]


def test_claims_of_one_process_exclude_each_other_too(tmp_path):
    with claim_run(str(tmp_path), "a"), claim_run(str(tmp_path), "b"):
        with pytest.raises(RunClaimed, match=f"process {os.getpid()} on host"), claim_run(str(tmp_path), "a"):
            pytest.fail("claimed twice")
        assert lock_path(str(tmp_path), "a").exists()
    assert not (tmp_path / "runs").exists()  # nothing was done there


def test_a_lock_whose_file_was_removed_is_taken_anew(tmp_path, monkeypatch):
    """Its owner unlinks the file between our open and our lock: holding the orphan would exclude nobody."""
    path, original, tries = lock_path(str(tmp_path), "a"), lock, []

    def late(file):
        tries.append(file)
        if len(tries) == 1:
            path.unlink()
        original(file)

    monkeypatch.setattr("adept.runs.claim.lock", late)
    with claim_run(str(tmp_path), "a"):
        assert len(tries) == 2 and path.exists()
        with pytest.raises(RunClaimed), claim_run(str(tmp_path), "a"):
            pytest.fail("claimed twice")
    assert not path.exists()


def test_a_lock_that_is_somebody_elses_by_now_is_left(tmp_path):
    path = lock_path(str(tmp_path), "a")
    with claim_run(str(tmp_path), "a"):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


@pytest.fixture
def no_locks(monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("adept.runs.claim.lock", none)


def test_without_locks_a_file_is_the_claim_and_no_other_process_does_the_run(tmp_path, no_locks):
    with claim_run(str(tmp_path), "a"):
        with pytest.raises(RunClaimed, match=f"process {os.getpid()} on host"), claim_run(str(tmp_path), "a"):
            pytest.fail("claimed twice")
        assert [path.name for path in (tmp_path / "runs").iterdir()] == [".a.claim"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("suffix", [".lock", ".claim"])
def test_a_claim_of_another_host_holds_while_its_heart_beats(tmp_path, request, suffix):
    """With locks that do not lock between hosts (.lock), and without any (.claim)."""
    if suffix == ".claim":
        request.getfixturevalue("no_locks")
    path = lock_path(str(tmp_path), "a").with_suffix(suffix)
    path.parent.mkdir()
    path.write_text("7 elsewhere")
    with pytest.raises(RunClaimed, match="process 7 on host elsewhere"), claim_run(str(tmp_path), "a"):
        pytest.fail("claimed twice")
    silent = time.time() - SILENT_SECONDS - 1
    os.utime(path, (silent, silent))
    with claim_run(str(tmp_path), "a"):
        assert path.read_text() == f"{os.getpid()} {platform.node()}"


def test_a_claim_of_a_dead_process_of_this_host_is_void(tmp_path, no_locks):
    process = subprocess.Popen(["true"])
    process.wait()
    path = lock_path(str(tmp_path), "a").with_suffix(".claim")
    path.parent.mkdir()
    path.write_text(f"{process.pid} {platform.node()}")
    with claim_run(str(tmp_path), "a"):
        assert path.exists()


def test_a_claims_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr("adept.runs.claim.HEARTBEAT_SECONDS", 0.02)
    path = lock_path(str(tmp_path), "a")
    with claim_run(str(tmp_path), "a"):
        os.utime(path, (1, 1))
        time.sleep(0.3)
        assert path.stat().st_mtime > time.time() - 60


def test_without_locks_it_is_said_and_the_run_goes_on(make_config, no_locks, capsys):
    config = make_config("t5", "pt")
    assert run(config)["status"] == "completed"
    assert "has no file locks (No locks available): a file with a heartbeat is the claim on" in capsys.readouterr().err
    assert runs_of(config) == [config.run_id, f"{config.run_id}.json"]


def test_a_finished_run_in_a_folder_that_cannot_be_written_to_is_done(make_config, monkeypatch):
    """What a killed process left there stays, and nobody minds."""
    config = make_config("t5", "pt")
    record, left = run(config), run_folder(config.results_dir, config.run_id) / "checkpoint.safetensors"
    left.write_bytes(b"half")
    monkeypatch.setattr(
        Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError(errno.EACCES, "Permission denied"))
    )
    assert run(config) == record and left.exists()


def test_what_a_killed_process_left_is_removed(make_config, monkeypatch):
    """Killed after the record was written, and while a temporary file was."""
    config = make_config("t5", "pt")
    record = run(config)
    runs, folder = Path(config.results_dir) / "runs", run_folder(config.results_dir, config.run_id)
    theirs = runs / ".tiny-t5-rte-pt-00000000.json.abc.tmp"
    left = [
        runs / f".{config.run_id}.lock", runs / f".{config.run_id}.json.x1.tmp",
        folder / ".checkpoint.safetensors.x2.tmp", folder / "checkpoint.safetensors",
        folder / "checkpoint.previous.safetensors",
    ]  # fmt: skip
    for path in (*left, theirs):
        path.write_bytes(b"half")
    assert read_record(config.results_dir, config.run_id) == record and all(
        path.exists() for path in left
    )  # looking changes nothing
    assert finished_record(config.results_dir, config.run_id) == record
    assert not any(path.exists() for path in left) and theirs.exists()

    unfinished = make_config("t5", "pt", seed=1)
    half = runs / f".{unfinished.run_id}.json.x1.tmp"
    half.write_bytes(b"half")
    run(unfinished)
    assert not half.exists()
