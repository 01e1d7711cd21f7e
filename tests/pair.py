"""One of two processes of tests/test_parallel.py: carries out the runs of a JSON file, [{"config": fields, ...}], one
after the other.

float64: in double precision. dies: before that training step, and goes on. signal: [step, rank, number], and goes on.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import sys
from pathlib import Path
from unittest import mock

import torch

from adept.base import distributed
from adept.config.run import RunConfig
from adept.training.loop import run
from adept.training.session import prepare_model
from adept.training.signals import Interrupted


class Killed(BaseException):
    """In place of SIGKILL."""


def in_float64() -> contextlib.AbstractContextManager:
    original = prepare_model

    def place(*arguments):
        session = original(*arguments)
        session.model.double()
        return session

    return mock.patch.object(loop, "place", place)


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
    """What became of the run's first life."""
    told = ""
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
                told = str(stop)
        record = run(config)
    assert record["config"] == dataclasses.asdict(config)  # in every process
    return told


def main(path: Path) -> None:
    torch.set_num_threads(1)
    distributed.initialize()
    told = []
    for job in json.loads(path.read_text()):
        told.append(carry_out(RunConfig(**job.pop("config")), **job))
    path.with_name(f"told.{distributed.RANK}.json").write_text(json.dumps(told))
    distributed.shutdown(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
