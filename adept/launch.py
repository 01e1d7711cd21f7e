"""Where a sweep's runs are carried out: in this process, in processes of this machine, on a Ray cluster, or by a Slurm array.

A launcher has `slots` (runs at a time), `submit(config)`, `wait(seconds)` -> [(run id, outcome)] and `close()`. An outcome is None (the
record is written), BUSY (another process has the run) or one line that says why it failed. What a run writes goes to its own folder, so
launchers on several machines need nothing in common but the results folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import shlex
import shutil
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, Protocol

from adept.config import ROOT, RunConfig, UserError, first_line
from adept.results import Claimed, run_folder

BUSY = "busy"
LOG = "log.txt"
"""Beside the run's other files: what it would have shown on a terminal of its own."""

Outcome = str | None


class Launcher(Protocol):
    slots: int

    def submit(self, config: RunConfig) -> None: ...

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]: ...

    def close(self) -> None: ...


def attempt(config: RunConfig) -> Outcome:
    """One run from start to record; its failure as a line, with the traceback on stderr where it is no user's mistake."""
    from adept.loop import run

    try:
        run(config)
    except Claimed:
        return BUSY
    except UserError as error:
        return str(error)
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {first_line(error)}"
    return None


class Here:
    """In this process, one after the other."""

    slots = 1

    def __init__(self):
        self.done: list[tuple[str, Outcome]] = []

    def submit(self, config: RunConfig) -> None:
        self.done.append((config.run_id, attempt(config)))

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        done, self.done = self.done, []
        return done

    def close(self) -> None: ...


# Processes of this machine ----------------------------------------------------------------------------------------------


class Worker:
    """A process that carries out runs as they come through its pipe, on one device."""

    def __init__(self, device: str, threads: int):
        context = multiprocessing.get_context("spawn")
        self.device, self.config = device, None
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, threads), daemon=True)
        self.process.start()
        other.close()

    def submit(self, config: RunConfig) -> None:
        self.config = config
        self.pipe.send(dataclasses.replace(config, device=self.device) if config.device == "auto" else config)

    def outcome(self) -> Outcome:
        """Of the run that it had. A process that died (out of memory, a kill) has failed it."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            return f"its process died (exit code {self.process.exitcode}); {self.log()}"

    def log(self) -> str:
        return f"see {run_folder(self.config.results_dir, self.config.run_id) / LOG}"


def serve(pipe, threads: int) -> None:
    """A worker's life: runs in, outcomes out, until the pipe closes. What a run shows goes to its folder's log."""
    if threads:
        import torch

        torch.set_num_threads(threads)
    while True:
        try:
            config = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        folder = run_folder(config.results_dir, config.run_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / LOG, "a", encoding="utf-8") as file, contextlib.redirect_stderr(file):
                outcome = attempt(config)
        except OSError as error:
            outcome = f"cannot write {folder / LOG}: {error.strerror}"
        except KeyboardInterrupt:
            return
        pipe.send(outcome)


class Local:
    """`workers` processes, spread over the GPUs where there are any; CPU cores are shared out among them."""

    def __init__(self, workers: int, gpus: int):
        self.slots = workers
        self.devices = [f"cuda:{number % gpus}" if gpus else "cpu" for number in range(workers)]
        self.threads = 0 if gpus else max(1, (os.cpu_count() or 1) // workers)
        self.workers: list[Worker | None] = [None] * workers

    def submit(self, config: RunConfig) -> None:
        place = next(i for i, worker in enumerate(self.workers) if worker is None or worker.config is None)
        self.workers[place] = self.workers[place] or Worker(self.devices[place], self.threads)
        self.workers[place].submit(config)

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        busy = {worker.pipe: place for place, worker in enumerate(self.workers) if worker is not None and worker.config is not None}
        done = []
        for pipe in multiprocessing.connection.wait(list(busy), timeout=seconds):
            place = busy[pipe]
            worker = self.workers[place]
            done.append((worker.config.run_id, worker.outcome()))
            worker.config = None
            if not worker.process.is_alive():
                self.workers[place] = None
        return done

    def close(self) -> None:
        """Ends all workers; a run that is not done keeps its last checkpoint."""
        for worker in filter(None, self.workers):
            worker.process.terminate()
        for worker in filter(None, self.workers):
            worker.process.join(30)


# A Ray cluster ----------------------------------------------------------------------------------------------------------


class Ray:
    """Tasks of a Ray cluster whose machines share the results folder. gpus_per_run: 0.25 puts four runs on one GPU."""

    def __init__(self, address: str | None, gpus_per_run: float, cpus_per_run: float = 1):
        try:
            import ray
        except ImportError as error:
            raise UserError("--launch ray needs Ray: pip install -r requirements-ray.txt") from error
        self.ray = ray
        environment = {"env_vars": {"PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}}
        try:
            ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"no Ray cluster at --ray_address {address}: {first_line(error, 100)}") from error
        there = ray.cluster_resources()
        per_run = {"GPU": gpus_per_run, "CPU": cpus_per_run}
        self.slots = int(min(there.get(kind, 0) / need for kind, need in per_run.items() if need))
        if not self.slots:
            raise UserError(
                f"no machine of the Ray cluster can give a run {gpus_per_run} GPUs and {cpus_per_run} CPUs; --gpus_per_run 0 asks for none"
            )
        self.task = ray.remote(num_gpus=gpus_per_run, num_cpus=cpus_per_run, max_retries=0)(attempt)
        self.running: dict[Any, str] = {}

    def submit(self, config: RunConfig) -> None:
        absolute = dataclasses.replace(config, results_dir=str(Path(config.results_dir).resolve()))
        self.running[self.task.remote(absolute)] = config.run_id

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        if not self.running:
            return []
        done = []
        for task in self.ray.wait(list(self.running), timeout=seconds)[0]:
            run_id = self.running.pop(task)
            try:
                done.append((run_id, self.ray.get(task)))
            except self.ray.exceptions.RayError as error:  # its worker or machine died
                done.append((run_id, f"{type(error).__name__}: {first_line(error)}"))
        return done

    def close(self) -> None:
        for task in self.running:
            self.ray.cancel(task, force=True)
        self.ray.shutdown()


# A Slurm array ----------------------------------------------------------------------------------------------------------

SCRIPT = """\
#!/usr/bin/env bash
#SBATCH --job-name=adept-{name}
#SBATCH --array=0-{last}
#SBATCH --output={logs}/slurm-%A_%a.txt
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
{options}# Every element of the array goes through the whole table and takes the runs that no other has: as many as there is time for.
# Two minutes before the time is up, the run in hand saves its checkpoint; the element goes on with it when it is queued again.
cd {root}
{command} &
child=$!
trap 'kill -USR1 $child; wait $child; scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"' USR1
wait $child
"""


def slurm_script(name: str, words: list[str], workers: int, options: str, folder: Path) -> str:
    """The batch script whose `workers` array elements each carry out the sweep command `words`."""
    lines = "".join(f"#SBATCH {option}\n" for option in shlex.split(options))
    return SCRIPT.format(
        name=name, last=workers - 1, logs=shlex.quote(str(folder)), options=lines, root=shlex.quote(str(ROOT)), command=shlex.join(words)
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
