"""Runs in processes of this machine and on Ray. Runs are killed, fail, and are interrupted; nothing is lost."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from small_sweeps import files, live_metrics, load, records, soon, sweep, write_table

from adept.base.atomic_files import write_atomically
from adept.commands.main import main
from adept.commands.sweep import make_launcher, sweep_parser
from adept.config.layers import resolve
from adept.runs.claim import claim_run
from adept.runs.layout import record_path
from adept.tables.launchers.in_process import InProcess
from adept.tables.launchers.local import Local, describe_exit
from adept.tables.launchers.ray_cluster import Ray
from adept.tables.launchers.run_stack import RunningStack, log_path, run_stack_logged
from adept.tables.sweep import carry_out
from adept.tables.table import PlannedRun
from adept.tables.table_file import load_table

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


def test_processes_share_the_runs_and_survive_kills_and_failures(tmp_path, short_polls, capsys):
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
    assert f"{runs[3].id}: failed: no adapter" in shown and f"{runs[3].id}: failed: no adapter" in shown
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
    ray_installed, tmp_path, short_polls, capsys, monkeypatch
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
