"""Where runs are carried out: in this process, in processes, on Ray, by Slurm.

Runs are killed, fail, and are interrupted; nothing is lost.
"""

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import ROOT

from adept.base.atomic_files import write_atomically
from adept.base.errors import UserError
from adept.commands.main import main
from adept.commands.sweep import make_launcher, sweep_parser
from adept.config.layers import resolve
from adept.config.run import RunConfig
from adept.runs.claim import RunClaimed, claim_run
from adept.runs.layout import record_path, run_folder
from adept.runs.record import SCHEMA, write_record
from adept.tables.early_stopping import EarlyStopping, stopped_path
from adept.tables.launchers.in_process import InProcess
from adept.tables.launchers.launcher import STOPPED
from adept.tables.launchers.local import Local, describe_exit
from adept.tables.launchers.ray_cluster import Ray
from adept.tables.launchers.run_stack import RunningStack, log_path, run_stack, run_stack_logged
from adept.tables.launchers.slurm import slurm_script
from adept.tables.sweep import Progress, Started, carry_out, duration
from adept.tables.table import PlannedRun, Table
from adept.tables.table_file import load_table
from adept.training.evaluation import evaluate
from adept.training.step import train_step

FIELDS = {
    "model": "tiny-t5", "data_dir": "fixtures", "task": "rte", "method": "adept", "prompt_len": 3, "bottleneck": 2,
    "device": "cpu", "steps": 4, "eval_every": 2, "batch_size": 2, "eval_rows": 4, "max_source_len": 32,
    "max_new_tokens": 2, "scoring": "likelihood",
}  # fmt: skip


def write_table(folder: Path, grid: list[dict], rows: str = "prompt_lr", seeds: tuple = (), **fields) -> Path:
    file = folder / "made_up.yaml"
    content = {"title": "Made up", "fields": {**FIELDS, **fields}, "grid": grid, "rows": rows, "seeds": list(seeds)}
    file.write_text(json.dumps(content))  # JSON is YAML
    return file


def sweep(file: Path, *words: str) -> int:
    """The exit code of `python -m adept sweep` on the table, with its results beside the file."""
    return main(["sweep", str(file), "--results_dir", str(file.parent / "results"), *words])


def load(file: Path) -> Table:
    return load_table(file, {"results_dir": str(file.parent / "results")})


def files(file: Path, name: str) -> list[Path]:
    return sorted((file.parent / "results" / "runs").glob(f"*/{name}"))


def live_metrics(run: PlannedRun) -> Path:
    return run_folder(run.config.results_dir, run.id) / "metrics.jsonl"


def records(file: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((file.parent / "results" / "runs").glob("*.json"))]


@contextlib.contextmanager
def soon(what: str, seconds: float = 90):
    """Yields a function to call until it is no longer too late."""
    end = time.monotonic() + seconds

    def wait():
        assert time.monotonic() < end, f"{what} takes longer than {seconds} s"
        time.sleep(0.05)

    yield wait


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr("adept.tables.sweep.POLL_SECONDS", 0.2)


# InProcess ------------------------------------------------------------------------------------------------------------


def write_made_up_record(config: RunConfig) -> None:
    scores = {"accuracy": 50.0}
    record = {
        "schema": SCHEMA, "run_id": config.run_id, "config": config.flat(), "best_step": 4, "trainable_params": 7,
        "notes": [], "sizes": {"train": 9, "validation": 9, "test": 900}, "timing": {}, "validation": scores,
        "test": scores, "history": [{"step": 4, "validation": scores}],
    }  # fmt: skip
    write_record(config.results_dir, record)


@pytest.fixture
def fake_runs(monkeypatch):
    """fake_runs(r1=..., r2=...) replaces training by what the test says for each prompt rate, and returns the rates.

    An exception is raised, None writes a record; a list has one of them for each attempt.
    """

    def install(**by_rate):
        calls = []

        def train(config):
            rate = f"r{config.prompt_lr:g}"
            calls.append(rate)
            end = by_rate.get(rate)
            if isinstance(end, list):
                end = end.pop(0) if end else None
            if end is not None:
                raise end
            write_made_up_record(config)

        def train_runs(jobs):
            ends = []
            for config, _ in jobs:
                try:
                    ends.append(train(config))
                except Exception as error:
                    ends.append(error)
            return ends

        monkeypatch.setattr("adept.tables.launchers.run_stack.train_runs", train_runs)
        return calls

    return install


def test_a_failed_run_is_tried_once_more_and_then_listed(tmp_path, fake_runs, fast, capsys):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2, 3, 4]}])
    calls = fake_runs(r1=[OSError("once")], r2=RuntimeError("always\nand again"), r3=UserError("a mistake"))
    assert sweep(file) == 2
    assert sorted(calls) == ["r1", "r1", "r2", "r2", "r3", "r3", "r4"]
    shown = capsys.readouterr()
    listed = shown.err.splitlines()[-6:]
    ids = {rate: run.id for rate, run in zip("1234", load(file).runs(), strict=True)}
    first = listed.index(f"error: {ids['2']} failed 2 times: RuntimeError: always and again")
    details = listed[first + 1 : first + 4]
    assert all(line.startswith("    ") for line in details) and "RuntimeError: always" in "".join(details)
    assert listed[-1] == f"error: {ids['3']} failed 2 times: a mistake"
    assert f"{ids['1']}: failed, once more: OSError: once" in shown.err
    assert "failed 2 · left 0" in shown.err
    assert "2 of 4 runs are missing" in shown.out
    assert [record["run_id"] for record in records(file)] == sorted([ids["1"], ids["4"]])


def test_finished_runs_skip_themselves_and_the_line_counts(tmp_path, fake_runs, capsys):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2, 3]}])
    fake_runs()
    write_made_up_record(load(file).runs()[1].config)
    calls = fake_runs()
    assert carry_out([load(file)], InProcess()) == {}
    assert calls == ["r1", "r3"]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("done")]
    assert lines[0] == "done 1 of 3 · running 1 · failed 0 · left 1"
    assert lines[1] == "done 2 of 3 · running 1 · failed 0 · left 0 · 0 s to go"
    assert lines[2] == "done 3 of 3 · running 0 · failed 0 · left 0"


def test_the_time_to_go_is_that_of_the_runs_done(tmp_path):
    runs = load(write_table(tmp_path, [{"prompt_lr": [1, 2, 3, 4, 5]}])).runs()
    progress = Progress(slots=2, seconds=[600.0, 1200.0])
    progress.running = {runs[0].id: Started(runs[0], frozenset([runs[0].id]))}
    assert (
        progress.line(runs) == "done 0 of 5 · running 1 · failed 0 · left 4 · 45 min to go"
    )  # three rounds of a quarter of an hour
    assert [duration(seconds) for seconds in (9, 100, 3600 * 5 + 1700)] == ["9 s", "2 min", "5 h 28 min"]


def test_a_run_that_another_sweep_has_is_waited_for(tmp_path, fake_runs, fast):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2]}])
    calls = fake_runs(r1=[RunClaimed("taken"), RunClaimed("taken"), RunClaimed("taken")])
    assert carry_out([load(file)], InProcess()) == {}
    assert calls == ["r1", "r2", "r1", "r1", "r1"]
    assert len(records(file)) == 2


def test_runs_that_wait_for_a_failed_one_are_told(tmp_path, fake_runs, capsys):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2]}], rows="method", seeds=(1, 2, 3))
    fake_runs(r2=ValueError("no"))
    assert sweep(file) == 2
    err = capsys.readouterr().err
    assert "left 2 (2 wait for validation to choose)" in err
    assert err.splitlines()[-1].startswith("error: 2 runs wait for those that failed")


def test_a_record_that_is_not_in_the_folder_is_a_failure(tmp_path, monkeypatch, fast):
    file = write_table(tmp_path, [{"prompt_lr": 1}])
    monkeypatch.setattr("adept.tables.launchers.run_stack.train_runs", lambda jobs: [{} for _ in jobs])
    ((_, why),) = carry_out([load(file)], InProcess()).items()
    assert "do the machines share this folder?" in why


def test_several_tables_are_carried_out_together(tmp_path, fake_runs):
    one = load(write_table(tmp_path, [{"prompt_lr": [1, 2]}]))
    two = load(write_table(tmp_path, [{"prompt_lr": [2, 3]}]))
    calls = fake_runs()
    assert carry_out([one, two], InProcess()) == {}
    assert calls == ["r1", "r2", "r3"]


def test_sigterm_saves_the_run_in_hand_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    file = write_table(tmp_path, [{"prompt_lr": [0.1, 0.2]}], steps=6, eval_every=3)
    steps = []

    def signalled(*rest):
        steps.append(1)
        if len(steps) == 8:  # the second step of the second run
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(*rest)

    monkeypatch.setattr("adept.training.loop.train_step", signalled)
    before = signal.getsignal(signal.SIGTERM)
    assert sweep(file, "--launch", "here") == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err.splitlines()[-1].endswith("from step 2 of 6, which is saved")
    assert [len(records(file)), len(files(file, "checkpoint.safetensors"))] == [1, 1]
    assert sweep(file, "--launch", "here") == 0
    assert len(steps) == 8 + 4
    assert len(records(file)) == 2


# Early stopping -------------------------------------------------------------------------------------------------------


@pytest.fixture
def scored(monkeypatch):
    """Validation scores by prompt rate, as if they had been measured."""
    by_rate = {}

    def fake(session, examples, scoring=None):
        scores, predictions = evaluate(session, examples, scoring)
        return dict.fromkeys(scores, by_rate[session.config.prompt_lr]), predictions

    monkeypatch.setattr("adept.training.run.evaluate", fake)
    return by_rate


def test_hopeless_grid_points_are_stopped_and_go_on_without_the_flag(tmp_path, scored, capsys):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2, 3, 4]}], rows="method", seeds=(7, 8), steps=9, eval_every=1)
    scored |= {1.0: 50.0, 2.0: 60.0, 3.0: 10.0, 4.0: 70.0}
    assert sweep(file, "--early_stopping") == 0
    done = {(record["config"]["prompt_lr"], record["config"]["seed"]) for record in records(file)}
    assert done == {(1.0, 7), (2.0, 7), (4.0, 7), (4.0, 8)}  # 3.0 was the last of the three that had reached its rung
    (note,) = files(file, "stopped.json")
    assert json.loads(note.read_text()) == {"step": 1, "score": 10.0, "rung": "1/9", "better": 2, "reached": 3}
    shown = capsys.readouterr()
    assert (
        f"{note.parent.name}: stopped early" in shown.err and "done 4 of 5 · stopped early 1 · running 0" in shown.err
    )
    assert "1 configurations were stopped early" in shown.out and "missing" not in shown.out
    (kept,) = files(file, "checkpoint.safetensors")
    assert kept.parent == note.parent

    assert sweep(file, "--early_stopping") == 0  # nobody tries it again
    assert "running 1" not in capsys.readouterr().err
    assert len(records(file)) == 4
    assert sweep(file) == 0
    assert "goes on from step 1 of 9" in capsys.readouterr().err
    assert len(records(file)) == 5 and not files(file, "stopped.json")


def test_a_run_that_another_sweep_stopped_since_is_not_begun(tmp_path, monkeypatch):
    config = load(write_table(tmp_path, [{"prompt_lr": 1}])).runs()[0].config
    write_atomically(stopped_path(config), "{}")
    monkeypatch.setattr("adept.training.loop.open_sessions", lambda *_: pytest.fail("it was begun"))
    assert run_stack([(config, EarlyStopping(config, ("a", "b")))]) == [STOPPED]


# Processes of this machine --------------------------------------------------------------------------------------------


class Killing(Local):
    """Kills the worker that has the run `victim` once it trains."""

    victim: PlannedRun
    killed = False

    def wait(self, seconds):
        if self.killed:
            return super().wait(seconds)
        for worker in self.workers:
            if worker is not None and worker.running is not None:
                ids = [config.run_id for config, _ in worker.running.stack]
                if self.victim.id in ids and live_metrics(self.victim).exists():
                    os.kill(worker.process.pid, signal.SIGKILL)
                    self.killed = True
        return super().wait(0.05)


def test_processes_share_the_runs_and_survive_kills_and_failures(tmp_path, fast, capsys):
    """Two workers; one is killed while it trains, one run can never work."""
    file = write_table(
        tmp_path, [{"prompt_lr": [0.1, 0.2, 0.3]}, {"prompt_lr": 0.4, "init_from": "nothing"}], steps=20, eval_every=10
    )
    runs = load(file).runs()
    launcher = Killing(2, 0)
    launcher.victim = runs[1]
    with contextlib.closing(launcher):
        failed = carry_out([load(file)], launcher)
    assert launcher.killed
    assert failed.keys() == {runs[3].id} and failed[runs[3].id].startswith("no adapter 'nothing'")
    assert [run.done for run in load(file).runs()] == [True, True, True, False]
    shown = capsys.readouterr().err
    assert (
        f"{runs[1].id}: failed, once more: its process was ended by SIGKILL, as the system does when memory runs out"
        in shown
    )
    assert f"{runs[3].id}: failed, once more: no adapter" in shown and f"{runs[3].id}: failed: no adapter" in shown
    assert "step     10  validation" not in shown  # that is in the log
    assert "step     10  validation" in log_path(runs[0].config).read_text()
    assert all(worker.process.returncode is not None for worker in launcher.workers)


def test_a_dead_process_is_told_with_the_last_lines_of_its_log(tmp_path):
    config = resolve({"task": "rte", "method": "pt", "results_dir": str(tmp_path)})
    path = log_path(config)
    write_atomically(path, "of an earlier attempt\n")
    job = RunningStack.of([(config, None)])
    with path.open("a") as file:
        file.write("one\n\ntwo\n  5%\r 10%\r 20%\nthree\nSegmentation fault\n")
    assert job.died("it died") == ["it died\ntwo\n 20%\nthree\nSegmentation fault"]
    assert describe_exit(3) == "ended with exit code 3"
    assert describe_exit(-signal.SIGSEGV) == "was ended by SIGSEGV"


def test_what_a_run_shows_is_in_its_log(tmp_path, capfd, monkeypatch):
    config = resolve({"task": "rte", "method": "pt", "results_dir": str(tmp_path)})
    monkeypatch.setattr(
        "adept.tables.launchers.run_stack.run_stack", lambda _: os.system("echo from a child; echo badly >&2")
    )
    run_stack_logged([(config, None)])
    assert log_path(config).read_text() == "from a child\nbadly\n"
    os.write(1, b"after it\n")
    assert capfd.readouterr().out == "after it\n"
    (tmp_path / "file").touch()
    (told,) = run_stack_logged(
        [(resolve({"task": "rte", "method": "pt", "results_dir": str(tmp_path / "file")}), None)]
    )
    assert told.startswith("cannot write")


def test_ctrl_c_reaches_the_workers_as_sigterm_and_loses_nothing(tmp_path):
    """A sweep of two processes gets SIGINT in its process group, as a terminal sends it."""
    file = write_table(tmp_path, [{"prompt_lr": [0.1, 0.2, 0.3]}], steps=100_000, eval_every=100_000, log_every=1)
    words = [str(file), "--results_dir", str(tmp_path / "results"), "--launch", "local", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "adept", "sweep", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        with soon("the training of two runs") as wait:
            while len([path for path in files(file, "metrics.jsonl") if path.stat().st_size]) < 2:
                assert process.poll() is None, process.stderr.read()
                wait()
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "stopped by SIGINT; finished runs are recorded, the same command goes on"
    assert "Traceback" not in err and out == ""
    saved = files(file, "checkpoint.safetensors")
    assert len(saved) == 2 and records(file) == []
    for path in saved:
        log = (path.parent / "log.txt").read_text()
        assert "Traceback" not in log
    for run in load(file).runs():
        with claim_run(run.config.results_dir, run.id):  # its worker has let go
            pass


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--launch local --workers 0", "--workers must be a whole number >= 1, not 0"),
        (
            "--launch here --workers 2",
            "--workers has no effect with --launch here; it is for --launch local and ray and slurm",
        ),
        ("--ray_address auto", "--ray_address has no effect with --launch local; it is for --launch ray"),
        ("--launch ray --gpus_per_run -1", "--gpus_per_run must be a number >= 0, not -1"),
        ("--launch slurm --gpus_per_run 1", "--gpus_per_run has no effect with --launch slurm"),
        ("--launch local --slurm_options=--time=1", "--slurm_options has no effect with --launch local"),
        ("--launch cloud", "invalid choice: 'cloud'"),
        ("--launch", "expected one argument"),
    ],
)
def test_launchers_flags_that_make_no_sense_get_one_line(tmp_path, words, named, capsys):
    file = write_table(tmp_path, [{"prompt_lr": 1}])
    assert main(["sweep", str(file), *words.split()]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("error: ") and shown.err.count("\n") == 1
    assert named in shown.err


def test_without_a_word_a_machine_is_used_as_it_is(monkeypatch):
    parser = sweep_parser([])
    monkeypatch.setattr("adept.commands.sweep.count_gpus", lambda: 0)
    assert isinstance(make_launcher(parser.parse_args([])), InProcess)
    monkeypatch.setattr("adept.commands.sweep.count_gpus", lambda: 3)
    launcher = make_launcher(parser.parse_args([]))
    assert launcher.devices == ["cuda:0", "cuda:1", "cuda:2"]
    assert Local(3, 2).devices == ["cuda:0", "cuda:1", "cuda:0"] and Local(2, 0).devices == ["cpu", "cpu"]


# Ray ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray_installed():
    pytest.importorskip("ray", reason="Ray is an extra: pip install -r requirements-ray.txt")


def pid_of(run: PlannedRun) -> int:
    """The process that has claimed the run, 0 where none has."""
    path = record_path(run.config.results_dir, run.id).with_name(f".{run.id}.lock")
    return int(path.read_text().split()[0] or 0) if path.exists() else 0


@pytest.mark.slow
def test_a_ray_cluster_survives_the_death_of_a_worker_and_saves_what_is_interrupted(
    ray_installed, tmp_path, fast, capsys, monkeypatch
):
    """A local cluster with two workers. One is killed while it trains; then the sweep ends while two runs train."""
    monkeypatch.chdir(tmp_path)  # a relative results folder means the same to the workers
    file = write_table(tmp_path, [{"prompt_lr": [0.1, 0.2, 0.3]}], steps=40, eval_every=10)
    table = load_table(file, {"results_dir": "results"})
    victim = table.runs()[1]
    killed = []

    class Killing(Ray):
        def wait(self, seconds):
            if not killed and live_metrics(victim).exists() and pid_of(victim):
                killed.append(pid_of(victim))
                os.kill(killed[0], signal.SIGKILL)
            return super().wait(seconds if killed else 0.05)

    launcher = Killing("local", 0, 2)
    with contextlib.closing(launcher):
        assert launcher.slots == 2
        assert carry_out([table], launcher) == {}
        assert killed and killed[0] != os.getpid()
        assert (
            f"{victim.id}: failed, once more: WorkerCrashedError: The worker died unexpectedly"
            in capsys.readouterr().err
        )
        assert len(records(file)) == 3

        long = write_table(tmp_path, [{"prompt_lr": [0.4, 0.5]}], steps=100_000, eval_every=100_000, log_every=1)
        runs = load_table(long, {"results_dir": "results"}).runs()
        for run in runs:
            launcher.submit([(run.config, None)])
        live = [live_metrics(run) for run in runs]
        with soon("the training of two runs") as wait:
            while not all(path.exists() and path.stat().st_size for path in live):
                assert launcher.wait(0) == []
                wait()
    assert [path.parent.name for path in files(file, "checkpoint.safetensors")] == sorted(run.id for run in runs)
    assert "step     10  validation" in log_path(victim.config).read_text()


def test_without_ray_or_its_cluster_there_is_one_line(ray_installed, tmp_path, monkeypatch, capsys):
    file = write_table(tmp_path, [{"prompt_lr": 1}])
    assert sweep(file, "--launch", "ray", "--ray_address", "nonsense:1:2") == 2
    assert "error: no Ray cluster at --ray_address nonsense:1:2" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)
    assert sweep(file, "--launch", "ray") == 2
    assert capsys.readouterr().err == "error: --launch ray needs Ray: pip install -r requirements-ray.txt\n"


# Slurm ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """programs(name, text): a shell script of that name, found before others; a made-up sbatch or scontrol."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(name: str, text: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    return write


def test_the_batch_script_passes_usr1_on_and_queues_its_element_again_when_the_run_is_saved(
    tmp_path, monkeypatch, programs
):
    """Slurm signals the shell alone (B:). The made-up command takes a moment to save, as a run does."""
    folder = tmp_path / "a folder's name"
    folder.mkdir()
    monkeypatch.chdir(folder)
    programs("scontrol", 'echo "scontrol $*" >> events')
    saving = (
        'trap "sleep 0.3; echo saved >> events; exit 138" USR1; echo "$PYTHONPATH" >> events; '
        "while :; do sleep 0.05; done"
    )
    script = folder / "script"
    script.write_text(
        slurm_script("my table", ["sh", "-c", saving], 16, "--partition=gpu  --time=1:00", folder / "logs")
    )
    environment = {**os.environ, "PYTHONPATH": "before", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    process = subprocess.Popen(["bash", str(script)], cwd=tmp_path, env=environment, start_new_session=True)
    try:
        with soon("the start of the command", 20) as wait:
            while not (folder / "events").exists():
                wait()
        process.send_signal(signal.SIGUSR1)
        assert process.wait(20) == 128 + signal.SIGUSR1
    finally:
        process.kill()
    assert (folder / "events").read_text().splitlines() == [f"{ROOT}:before", "saved", "scontrol requeue 7_3"]
    directives = [
        line.removeprefix("#SBATCH ") for line in script.read_text().splitlines() if line.startswith("#SBATCH ")
    ]
    assert directives[:2] == ["--job-name='adept-my table'", "--array=0-15"]
    assert directives[-3:] == ["--requeue", "--signal=B:USR1@120", "--partition=gpu --time=1:00"]


def test_the_batch_script_ends_as_the_sweep_does(tmp_path, monkeypatch, programs):
    monkeypatch.chdir(tmp_path)
    programs("scontrol", "touch requeued")
    script = slurm_script("t", ["sh", "-c", "exit 2"], 1, "", tmp_path)
    assert "#SBATCH \n" not in script
    assert subprocess.run(["bash", "-c", script]).returncode == 2
    assert not (tmp_path / "requeued").exists()


def test_a_sweep_hands_itself_to_sbatch(tmp_path, programs, capsys):
    file = write_table(tmp_path, [{"prompt_lr": [1, 2]}])
    words = [str(file), "--results_dir", str(tmp_path / "results"), "--early_stopping", "--steps", "7"]
    programs("sbatch", f'cp "$1" {tmp_path}/handed; echo Submitted batch job 5')
    assert main(["sweep", *words, "--launch=slurm", "--workers", "3", "--slurm_options=--time=1:00"]) == 0
    assert capsys.readouterr().out == "Submitted batch job 5\n"
    script = (tmp_path / "handed").read_text().splitlines()
    assert f"{sys.executable} -m adept sweep {' '.join(words)} --launch here &" in script
    assert {"#SBATCH --array=0-2", "#SBATCH --time=1:00"} <= set(script)
    programs("sbatch", 'echo "sbatch: error: invalid partition" >&2; exit 1')
    assert main(["sweep", *words, "--launch", "slurm"]) == 2
    path = tmp_path / "results" / "slurm" / "made_up.sbatch"
    assert capsys.readouterr().err == f"error: sbatch refused {path}: sbatch: error: invalid partition\n"


def test_without_sbatch_the_script_is_there_and_there_is_one_line(tmp_path, monkeypatch, capsys):
    file = write_table(tmp_path, [{"prompt_lr": 1}])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sweep(file, "--launch", "slurm") == 2
    path = tmp_path / "results" / "slurm" / "made_up.sbatch"
    assert capsys.readouterr().err == f"error: --launch slurm needs sbatch, which is not here; the script is {path}\n"
    assert "#SBATCH --array=0-7" in path.read_text()


SLURM = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""
"""One node that trusts whoever asks, so that it needs no munge.

cred_expire is also the time that a job waits when it is queued again.
"""


@pytest.fixture
def slurm_node(monkeypatch):
    """Debian's Slurm on this machine, as this user, until the test ends.

    Skips the test where Slurm is not installed or does not start.
    """
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if missing := [
        name for name in ("slurmctld", "slurmd", "sbatch", "scancel", "sinfo", "squeue") if shutil.which(name) is None
    ]:
        pytest.skip(f"no {', '.join(missing)}: apt-get install slurmctld slurmd slurm-client")
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        ports = [one.getsockname()[1] for one in sockets]
        stack.close()
        for name in ("state", "spool"):
            Path(folder, name).mkdir()
        host = socket.gethostname().split(".")[0]
        Path(folder, "slurm.conf").write_text(
            SLURM.format(host=host, ports=ports, user=getpass.getuser(), folder=folder)
        )
        monkeypatch.setenv("SLURM_CONF", f"{folder}/slurm.conf")
        log = stack.enter_context(open(f"{folder}/log", "wb"))
        for words in (["slurmctld", "-D", "-c"], ["slurmd", "-D"]):
            process = subprocess.Popen(words, stdout=log, stderr=log)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
        end = time.monotonic() + 30
        while subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True).stdout.strip() != "idle":
            if time.monotonic() > end:
                pytest.skip(f"Slurm does not start here: {Path(folder, 'log').read_text().splitlines()[-3:]}")
            time.sleep(0.2)
        yield
        subprocess.run(["scancel", "--user", getpass.getuser()])


@pytest.mark.slow
def test_a_slurm_array_shares_the_runs_and_goes_on_after_its_time(slurm_node, tmp_path, capsys):
    """Two elements, three short runs and one long one; then the signal that Slurm sends before the time is up."""
    long = {"prompt_lr": 0.4, "steps": 100_000, "eval_every": 100_000, "log_every": 1}
    file = write_table(tmp_path, [{"prompt_lr": [0.1, 0.2, 0.3]}, long])
    assert sweep(file, "--launch", "slurm", "--workers", "2") == 0
    job = capsys.readouterr().out.removeprefix("Submitted batch job ").strip()
    last = load(file).runs()[-1]
    live = live_metrics(last)

    def shown() -> str:
        return "".join(path.read_text() for path in (tmp_path / "results" / "slurm").glob(f"slurm-{job}_?.txt"))

    with soon("the first time of the array") as wait:
        while len(records(file)) < 3 or not (live.exists() and live.stat().st_size):
            wait()
    assert "goes on from step" not in shown()
    subprocess.run(["scancel", "--batch", "--signal=USR1", job], check=True)
    with soon("its second time") as wait:
        while f"{last.id} goes on from step" not in shown():
            wait()
    subprocess.run(["scancel", job], check=True)
    with soon("its end") as wait:
        while subprocess.run(["squeue", "-h"], capture_output=True).stdout:
            wait()
    assert shown().count("stopped by SIGUSR1; finished runs are recorded, the same command goes on") == 2
    assert shown().count("stopped by SIGUSR1; finished runs are recorded, the same command goes on from step") == 1
    assert [path.parent.name for path in files(file, "checkpoint.safetensors")] == [last.id]
    assert len(records(file)) == 3
