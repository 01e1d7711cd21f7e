"""Runs as tasks of a Ray cluster."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from adept.base.errors import UserError, first_line
from adept.base.paths import ROOT
from adept.tables.launchers.launcher import SHUTDOWN_SECONDS, Job, Outcome, by_run_id
from adept.tables.launchers.run_stack import RunningStack, run_stack_logged


class Ray:
    """A Ray cluster whose machines share the checkout, the results folder and the folder that the sweep runs in."""

    def __init__(self, address: str | None, gpus_per_run: float | None, workers: int | None):
        """Connects to the cluster.

        gpus_per_run: 0.25 puts four runs on one GPU; None: 1 where the cluster has GPUs, else 0. workers: at most so
        many stacks at a time. Raises UserError where Ray is not installed, no cluster answers, or it cannot hold a run.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        try:
            import ray
        except ImportError as error:
            raise UserError("--launch ray needs Ray: pip install -r requirements-ray.txt") from error
        self.ray = ray
        environment = {"env_vars": {"PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}}
        try:
            ray.init(
                address=address,
                runtime_env=environment,
                log_to_driver=False,
                logging_level="error",
                include_dashboard=False,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"no Ray cluster at --ray_address {address}: {first_line(error, 100)}") from error
        available = ray.cluster_resources()
        per_run = {"CPU": 1.0, "GPU": min(1.0, available.get("GPU", 0)) if gpus_per_run is None else gpus_per_run}
        slots = int(min(available.get(kind, 0) / need for kind, need in per_run.items() if need))
        if not slots:
            ray.shutdown()
            raise UserError(
                f"the Ray cluster has no {per_run['GPU']:g} GPUs and 1 CPU for a run; --gpus_per_run 0 asks for no GPU"
            )
        self.slots, self.on_gpu = min(slots, workers or slots), per_run["GPU"] > 0
        self.shares_devices = self.slots > 1 and per_run["GPU"] < 1
        self.task = ray.remote(num_cpus=1, num_gpus=per_run["GPU"], max_retries=0)(run_in_folder)
        self.running: dict[ray.ObjectRef, RunningStack] = {}

    def submit(self, stack: Sequence[Job]) -> None:
        self.running[self.task.remote(os.getcwd(), stack)] = RunningStack.of(stack)

    def wait(self, seconds: float) -> list[tuple[str, Outcome]]:
        if not self.running:
            return []
        ended = []
        for task in self.ray.wait(list(self.running), timeout=seconds)[0]:
            running = self.running.pop(task)
            try:
                outcomes = self.ray.get(task)
            except self.ray.exceptions.RayError as error:  # its process or machine died
                outcomes = running.died(f"{type(error).__name__}: {first_line(error)}")
            ended += by_run_id(running.stack, outcomes)
        return ended

    def close(self) -> None:
        """Ends all tasks; a run that is not done saves its checkpoint first."""
        for task in self.running:
            self.ray.cancel(task)  # raises KeyboardInterrupt in it
        if self.running:
            self.ray.wait(list(self.running), num_returns=len(self.running), timeout=SHUTDOWN_SECONDS)
        self.ray.shutdown()


def run_in_folder(folder: str, stack: Sequence[Job]) -> list[Outcome]:
    """A Ray task: carries out a stack in the sweep's folder, so that relative paths mean the same."""
    # ray.cancel() sends SIGINT, which the processes of a cluster that was started by nohup ignore.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        os.chdir(folder)
    except OSError as error:
        reason = f"a machine of the Ray cluster cannot go to {folder}: {error.strerror}"
        return [f"{reason}; its machines must share this folder"] * len(stack)
    return run_stack_logged(stack)
