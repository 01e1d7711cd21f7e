"""A sweep as a Slurm array: the batch script, and the real thing where Slurm is installed."""

import contextlib
import getpass
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
from small_sweeps import files, live_metrics, load, records, soon, sweep, write_table

from adept.commands.main import main
from adept.tables.launchers.slurm import slurm_script


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


def test_a_setup_file_is_read_first_and_may_prefix_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    setup = tmp_path / "set up.sh"
    setup.write_text("export FROM_SETUP=loaded\nADEPT_PREFIX='env INSIDE=container'\n")
    words = ["sh", "-c", 'echo "$FROM_SETUP $INSIDE" > told']
    script = tmp_path / "script"
    script.write_text(slurm_script("x", words, 1, "", tmp_path, setup))
    subprocess.run(["bash", str(script)], check=True, cwd=tmp_path)
    assert (tmp_path / "told").read_text() == "loaded container\n"


def test_a_setup_file_that_is_not_there_is_one_line(tmp_path, capsys):
    file = write_table(tmp_path, [{"prompt_lr": [1]}])
    assert sweep(file, "--launch", "slurm", "--slurm_setup", str(tmp_path / "nothing.sh")) == 2
    assert "nothing.sh is not a file" in capsys.readouterr().err
    assert sweep(file, "--launch", "local", "--slurm_setup", "x") == 2
    assert "--slurm_setup has no effect with --launch local" in capsys.readouterr().err
