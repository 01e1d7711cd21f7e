"""One of two processes of tests/training/test_processes.py: carries out the runs of a JSON file.

The file is [{"config": {option: value}, ...}]. The other keys say what happens to a run before it is done to its end.
float64: it computes in double precision. dies: the number of the training step before which it is killed. signal:
[step, rank, signal], before that step to that process. An error waits a second before it is raised further, in which
torchrun ends what it can end.
"""

import contextlib
import itertools
import json
import os
import sys
import time
from pathlib import Path
from unittest import mock

import torch

from adept.base import distributed
from adept.base.errors import UserError
from adept.config.run import RunConfig
from adept.training import loop, session
from adept.training.loop import run
from adept.training.signals import Interrupted


class Killed(BaseException):
    """In place of SIGKILL."""


def in_float64() -> contextlib.AbstractContextManager:
    original = session.prepare_model

    def prepare_model(*arguments):
        opened = original(*arguments)
        opened.model.double()
        return opened

    return mock.patch.object(session, "prepare_model", prepare_model)


def before_step(number: int, act) -> contextlib.AbstractContextManager:
    original, calls = loop.train_step, itertools.count(1)

    def train_step(*arguments):
        if next(calls) == number:
            act()
        return original(*arguments)

    return mock.patch.object(loop, "train_step", train_step)


def kill() -> None:
    raise Killed


def carry_out(
    config: RunConfig, float64: bool = False, dies: int = 0, signal: tuple[int, int, int] | None = None
) -> str:
    """Does the run to its end. Returns the line with which `signal` interrupted it, or ""."""
    message = ""
    with in_float64() if float64 else contextlib.nullcontext():
        if dies:
            with before_step(dies, kill), contextlib.suppress(Killed):
                run(config)
        if signal:
            step, rank, number = signal
            try:
                with before_step(step, lambda: os.kill(os.getpid(), number) if rank == distributed.RANK else None):
                    run(config)
            except Interrupted as stop:
                message = str(stop)
        record = run(config)
    assert record["config"] == config.flat()  # in every process
    return message


def main(path: Path) -> None:
    torch.set_num_threads(1)
    distributed.initialize()
    messages = []
    for job in json.loads(path.read_text()):
        try:
            messages.append(carry_out(RunConfig.from_record(job.pop("config")), **job))
        except UserError:
            time.sleep(1)
            raise
    path.with_name(f"messages.{distributed.RANK}.json").write_text(json.dumps(messages))
    distributed.shutdown(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
