"""Runs in processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from adept.base.paths import ROOT
from adept.tables.launchers.launcher import SHUTDOWN_SECONDS, Job, Outcome, by_run_id
from adept.tables.launchers.run_stack import RunningStack


class Worker:
    """A process that carries out the stacks that come through its pipe, on one device (worker.py).

    It has a process group of its own, so that Ctrl-C reaches the sweep alone, which then asks its workers to stop.
    """

    def __init__(self, device: str, threads: int):
        self.device = device
        self.running: RunningStack | None = None
        self.pipe, child_pipe = multiprocessing.Pipe()
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONPATH": path}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "adept.tables.launchers.worker", str(child_pipe.fileno())],
            pass_fds=[child_pipe.fileno()], process_group=0, stdin=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        child_pipe.close()

    def submit(self, stack: Sequence[Job]) -> None:
        self.running = RunningStack.of(stack)
        jobs = [
            (config.replace(device=self.device) if config.device == "auto" else config, rule) for config, rule in stack
        ]
        with contextlib.suppress(BrokenPipeError):  # the process has just died, and outcomes() will say so
            self.pipe.send(jobs)

    def take_outcomes(self) -> list[tuple[str, Outcome]]:
        """(run id, outcome) of the stack that it was doing. If the process has died, all of its runs have failed."""
        running, self.running = self.running, None
        try:
            outcomes = self.pipe.recv()
        except (EOFError, ConnectionError):
            outcomes = running.died(f"its process {describe_exit(self.process.wait())}")
        return by_run_id(running.stack, outcomes)


def describe_exit(code: int) -> str:
    """How a process ended, from its exit code: "was ended by SIGSEGV"."""
    if code >= 0:
        return f"ended with exit code {code}"
    memory = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name}{memory}"


class Local:
    """`workers` processes. They are spread over the GPUs; on a machine without, they share the CPU cores."""

    def __init__(self, workers: int, gpus: int):
        self.slots, self.on_gpu, self.shares_devices = workers, gpus > 0, workers > max(gpus, 1)
        self.devices = [f"cuda:{number % gpus}" if gpus else "cpu" for number in range(workers)]
        self.threads = max(1, (os.cpu_count() or 1) // workers)
        self.workers: list[Worker | None] = [None] * workers

    def submit(self, stack: Sequence[Job]) -> None:
        slot = next(i for i, worker in enumerate(self.workers) if worker is None or worker.running is None)
        if self.workers[slot] is None or self.workers[slot].process.poll() is not None:
            self.workers[slot] = Worker(self.devices[slot], self.threads)
        self.workers[slot].submit(stack)

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        busy = {worker.pipe: worker for worker in self.workers if worker is not None and worker.running is not None}
        ready = multiprocessing.connection.wait(list(busy), timeout=seconds)
        return [outcome for pipe in ready for outcome in busy[pipe].take_outcomes()]

    def close(self) -> None:
        """Ends all workers; a run that is not done saves its checkpoint first."""
        workers = [worker for worker in self.workers if worker is not None]
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(SHUTDOWN_SECONDS)
