"""Where a sweep's runs are carried out: in this process, in processes of this machine, on a Ray cluster, or by a Slurm array.

A launcher has `slots` (stacks of runs at a time, mostly of one run), `submit(stack)`, `wait(seconds)` -> [(run id, outcome)] and
`close()`, after which every run that was going has saved its checkpoint. What a run writes goes to its own folder, so launchers on several
machines need nothing in common but the results folder.

python -m adept.launch FD is a worker of `Local`, which talks to it through that file descriptor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import shlex
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from adept.config import ROOT, RunConfig, UserError, first_line
from adept.early import EarlyStopped, is_stopped
from adept.results import Claimed, run_folder

BUSY, STOPPED = "busy", "stopped early"
Outcome = str | None
"""None: the record is written. BUSY: another process has the run. STOPPED: it fell behind. Else why it failed: one line, then details."""

Judge = Callable[[int, list[dict]], bool]
Job = tuple[RunConfig, Judge | None]
"""A run, and who may stop it early (adept/loop.py)."""

LOG = "log.txt"
"""Beside the run's other files: what it would have shown on a terminal of its own."""

LAST_LINES = 4
"""Of a failed run's traceback or log, shown with it."""

PATIENCE = 60.0
"""Seconds for the runs that are going to save their checkpoints when a sweep is interrupted."""


class Launcher(Protocol):
    slots: int
    on_gpu: bool

    def submit(self, stack: Sequence[Job]) -> None: ...

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]: ...

    def close(self) -> None: ...


def attempt(stack: Sequence[Job]) -> list[Outcome]:
    """The runs of a stack from start to record. A failure is told with the end of its traceback, a user's mistake in one line.

    Raises Stopped (a KeyboardInterrupt) for a signal, with the training saved.
    """
    from adept.loop import run_stack

    left = [(config, stop) for config, stop in stack if not (stop is not None and is_stopped(config))]  # since it was planned, by another
    ended = {config.run_id: outcome_of(end) for (config, _), end in zip(left, run_stack(left), strict=True)}
    return [ended.get(config.run_id, STOPPED) for config, _ in stack]


def outcome_of(end: dict | Exception) -> Outcome:
    match end:
        case Claimed():
            return BUSY
        case EarlyStopped():
            return STOPPED
        case UserError():
            return str(end)
        case Exception():
            traceback.print_exception(end)
            return "\n".join(
                [f"{type(end).__name__}: {first_line(end)}", *"".join(traceback.format_exception(end)).splitlines()[-LAST_LINES:-1]]
            )
    return None


class Here:
    """In this process, one after the other."""

    slots = 1

    def __init__(self):
        import torch

        self.on_gpu = torch.cuda.is_available()
        self.next: Sequence[Job] = ()

    def submit(self, stack: Sequence[Job]) -> None:
        self.next = stack

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        stack, self.next = self.next, ()
        return named(stack, attempt(stack)) if stack else []

    def close(self) -> None: ...


def named(stack: Sequence[Job], outcomes: Sequence[Outcome]) -> list[tuple[str, Outcome]]:
    return [(config.run_id, outcome) for (config, _), outcome in zip(stack, outcomes, strict=True)]


# Logs -------------------------------------------------------------------------------------------------------------------


def log_path(config: RunConfig) -> Path:
    return run_folder(config.results_dir, config.run_id) / LOG


def logged(stack: Sequence[Job]) -> list[Outcome]:
    """attempt(), and whatever this process prints goes to the end of the first run's log."""
    path = log_path(stack[0][0])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab")  # noqa: SIM115 - closed below
    except OSError as error:
        return [f"cannot write {path}: {error.strerror}"] * len(stack)
    with file, shown_in(file):
        return attempt(stack)


@contextlib.contextmanager
def shown_in(file: BinaryIO) -> Iterator[None]:
    """By file descriptor, so that what libraries in C print is there too."""
    kept = {number: os.dup(number) for number in (1, 2)}
    flush()
    for number in kept:
        os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        flush()
        for number, before in kept.items():
            os.dup2(before, number)
            os.close(before)


def flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


@dataclasses.dataclass
class Going:
    """A stack that a worker has. start: the size of its log when it was handed over."""

    stack: Sequence[Job]
    start: int

    @classmethod
    def of(cls, stack: Sequence[Job]) -> Going:
        path = log_path(stack[0][0])
        return cls(stack, path.stat().st_size if path.is_file() else 0)

    def died(self, how: str) -> list[Outcome]:
        """The outcomes of runs whose process is gone, with the last lines of its log."""
        try:
            text = log_path(self.stack[0][0]).read_bytes()[self.start :].decode("utf-8", errors="replace")
        except OSError:
            text = ""
        shown = [line.rpartition("\r")[2].rstrip() for line in text.rstrip().split("\n")]  # a progress bar as it was last
        return ["\n".join([how, *[line for line in shown if line][-LAST_LINES:]])] * len(self.stack)


# Processes of this machine ----------------------------------------------------------------------------------------------


class Worker:
    """A process that carries out runs as they come through its pipe, on one device.

    It is in a process group of its own: Ctrl-C reaches the sweep alone, which then asks its workers to stop.
    """

    def __init__(self, device: str, threads: int):
        self.device = device
        self.job: Going | None = None
        self.pipe, other = multiprocessing.Pipe()
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONPATH": path}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "adept.launch", str(other.fileno())],
            pass_fds=[other.fileno()], process_group=0, stdin=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        other.close()

    def submit(self, stack: Sequence[Job]) -> None:
        self.job = Going.of(stack)
        here = [(dataclasses.replace(config, device=self.device) if config.device == "auto" else config, stop) for config, stop in stack]
        with contextlib.suppress(BrokenPipeError):  # it died just now: wait() will tell
            self.pipe.send(here)

    def outcomes(self) -> list[Outcome]:
        """Of the runs that it had. A process that died has failed them."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            return self.job.died(f"its process {ending(self.process.wait())}")


def ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    memory = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name}{memory}"


def serve(pipe: multiprocessing.connection.Connection) -> int:
    """A worker's life: runs in, outcomes out, until the pipe closes. Returns the exit code."""
    faulthandler.enable()  # a crash in C shows its place in the log
    while True:
        try:
            stack = pipe.recv()
        except EOFError:
            return 0
        try:
            pipe.send(logged(stack))
        except KeyboardInterrupt as signalled:  # the runs' training is saved
            return getattr(signalled, "code", 130)
        except OSError:  # the sweep is gone; the runs are recorded
            return 0


class Local:
    """`workers` processes, spread over the GPUs where there are any; without, the CPU cores are shared out among them."""

    def __init__(self, workers: int, gpus: int):
        self.slots, self.on_gpu = workers, gpus > 0
        self.devices = [f"cuda:{number % gpus}" if gpus else "cpu" for number in range(workers)]
        self.threads = max(1, (os.cpu_count() or 1) // workers)
        self.workers: list[Worker | None] = [None] * workers

    def submit(self, stack: Sequence[Job]) -> None:
        place = next(i for i, worker in enumerate(self.workers) if worker is None or worker.job is None)
        if self.workers[place] is None or self.workers[place].process.poll() is not None:
            self.workers[place] = Worker(self.devices[place], self.threads)
        self.workers[place].submit(stack)

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        busy = {worker.pipe: worker for worker in self.workers if worker is not None and worker.job is not None}
        done = []
        for pipe in multiprocessing.connection.wait(list(busy), timeout=seconds):
            worker = busy[pipe]
            done += named(worker.job.stack, worker.outcomes())
            worker.job = None
        return done

    def close(self) -> None:
        """Ends all workers; a run that is not done saves its checkpoint first."""
        workers = [worker for worker in self.workers if worker is not None]
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(PATIENCE)


# A Ray cluster ----------------------------------------------------------------------------------------------------------


class Ray:
    """Tasks of a Ray cluster whose machines share the checkout, the results folder and the folder that the command is typed in.

    gpus_per_run: 0.25 puts four runs on one GPU; None: 1 where the cluster has GPUs. workers: at most so many runs at a time.
    """

    def __init__(self, address: str | None, gpus_per_run: float | None, workers: int | None):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        try:
            import ray
        except ImportError as error:
            raise UserError("--launch ray needs Ray: pip install -r requirements-ray.txt") from error
        self.ray = ray
        environment = {"env_vars": {"PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}}
        try:
            ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level="error", include_dashboard=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"no Ray cluster at --ray_address {address}: {first_line(error, 100)}") from error
        there = ray.cluster_resources()
        per_run = {"CPU": 1.0, "GPU": min(1.0, there.get("GPU", 0)) if gpus_per_run is None else gpus_per_run}
        self.slots = int(min(there.get(kind, 0) / need for kind, need in per_run.items() if need))
        if not self.slots:
            ray.shutdown()
            raise UserError(f"the Ray cluster has no {per_run['GPU']:g} GPUs and 1 CPU for a run; --gpus_per_run 0 asks for no GPU")
        self.slots, self.on_gpu = min(self.slots, workers or self.slots), per_run["GPU"] > 0
        self.task = ray.remote(num_cpus=1, num_gpus=per_run["GPU"], max_retries=0)(in_folder)
        self.running: dict[ray.ObjectRef, Going] = {}

    def submit(self, stack: Sequence[Job]) -> None:
        self.running[self.task.remote(os.getcwd(), stack)] = Going.of(stack)

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        if not self.running:
            return []
        done = []
        for task in self.ray.wait(list(self.running), timeout=seconds)[0]:
            job = self.running.pop(task)
            try:
                outcomes = self.ray.get(task)
            except self.ray.exceptions.RayError as error:  # its worker or machine died
                outcomes = job.died(f"{type(error).__name__}: {first_line(error)}")
            done += named(job.stack, outcomes)
        return done

    def close(self) -> None:
        """Ends all tasks; a run that is not done saves its checkpoint first."""
        for task in self.running:
            self.ray.cancel(task)  # raises KeyboardInterrupt in it
        if self.running:
            self.ray.wait(list(self.running), num_returns=len(self.running), timeout=PATIENCE)
        self.ray.shutdown()


def in_folder(folder: str, stack: Sequence[Job]) -> list[Outcome]:
    """A Ray task: runs where the sweep's relative paths mean what they mean there."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ray.cancel() sends it; a cluster started by nohup would ignore it
    try:
        os.chdir(folder)
    except OSError as error:
        return [f"a machine of the Ray cluster cannot go to {folder}: {error.strerror}; its machines must share this folder"] * len(stack)
    return logged(stack)


# A Slurm array ----------------------------------------------------------------------------------------------------------

SCRIPT = """\
#!/usr/bin/env bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --output={log}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
{options}# Every element of the array goes through the whole table and takes the runs that no other has.
# Two minutes before its time is up, the run in hand saves its checkpoint; the element goes on with it when it is queued again.
cd {folder}
export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}
trap 'kill -USR1 $!; wait $!; scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"' USR1
{command} &
wait $!
"""


def slurm_script(name: str, words: list[str], workers: int, options: str, logs: Path) -> str:
    """The batch script whose `workers` array elements each carry out the command `words`; options: sbatch's own."""
    return SCRIPT.format(
        name=shlex.quote(f"adept-{name}"),
        last=workers - 1,
        log=shlex.quote(str(logs / "slurm-%A_%a.txt")),
        options=f"#SBATCH {' '.join(options.split())}\n" if options else "",
        folder=shlex.quote(os.getcwd()),
        root=shlex.quote(str(ROOT)),
        command=shlex.join(words),
    )


def submit_to_slurm(name: str, arguments: list[str], workers: int, options: str, folder: Path) -> str:
    """Writes the batch script and hands it to sbatch; returns what sbatch says. Raises UserError where there is none or it refuses."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / f"{name}.sbatch"
    words = [sys.executable, "-m", "adept.sweep", *arguments, "--launch", "here"]
    script.write_text(slurm_script(name, words, workers, options, folder), encoding="utf-8")
    if shutil.which("sbatch") is None:
        raise UserError(f"--launch slurm needs sbatch, which is not here; the script is {script}")
    done = subprocess.run(["sbatch", str(script)], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"sbatch refused {script}: {' '.join(done.stderr.split())[:200]}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(serve(multiprocessing.connection.Connection(int(sys.argv[1]))))
