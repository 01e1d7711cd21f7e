"""Runs in processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from adept.base.paths import ROOT
from adept.tables.launchers.launcher import PATIENCE, Job, Outcome, by_run_id
from adept.tables.launchers.run_stack import RunningStack


class Worker:
    """A process that carries out runs as they come through its pipe, on one device.

    It is in a process group of its own: Ctrl-C reaches the sweep alone, which then asks its workers to stop.
    """

    def __init__(self, device: str, threads: int):
        self.device = device
        self.job: RunningStack | None = None
        self.pipe, other = multiprocessing.Pipe()
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONPATH": path}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "adept.tables.launchers.worker", str(other.fileno())],
            pass_fds=[other.fileno()], process_group=0, stdin=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        other.close()

    def submit(self, stack: Sequence[Job]) -> None:
        self.job = RunningStack.of(stack)
        here = [
            (config.replace(device=self.device) if config.device == "auto" else config, stop) for config, stop in stack
        ]
        with contextlib.suppress(BrokenPipeError):  # it died just now: wait() will tell
            self.pipe.send(here)

    def outcomes(self) -> list[Outcome]:
        """Of the runs that it had. A process that died has failed them."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            return self.job.died(f"its process {describe_exit(self.process.wait())}")


def describe_exit(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    memory = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name}{memory}"


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
            done += by_run_id(worker.job.stack, worker.outcomes())
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
