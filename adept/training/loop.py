"""The training loop: optimizer steps of runs that share one frozen model. Most often there is a single run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch

from adept.base.console import print_status
from adept.config.run import RunConfig
from adept.data.dataset import with_steps
from adept.training.clock import TrainingClock
from adept.training.memory import (
    OutOfMemoryInTraining,
    loading_remedies,
    release_memory,
    report_out_of_memory,
    training_remedies,
)
from adept.training.run import Run, SharedData, StoppingRule
from adept.training.session import Session, open_sessions
from adept.training.signals import Interrupted, Signals
from adept.training.stack import Stack
from adept.training.step import StepResult, train_step


def run(config: RunConfig, should_stop: StoppingRule | None = None) -> dict:
    """Trains a run, selects its best checkpoint by validation, tests it and writes the record, which it returns.

    A finished run's record is returned as it is; a run that was killed goes on from its last checkpoint.

    Raises UserError for bad input, for a loss that is not finite (with step, rates and the batch's ids), for a full
    disk and for too little memory; RunClaimed when another process is at this run; Interrupted after Ctrl-C, SIGTERM or
    SIGUSR1, and EarlyStopped where `should_stop` says so, both with the training saved.
    """
    (outcome,) = train_runs([(config, should_stop)])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def train_runs(jobs: Sequence[tuple[RunConfig, StoppingRule | None]]) -> list[dict | Exception]:
    """Trains runs together on one model that is loaded once.

    Returns each run's record, or the exception that ended it: one run's failure does not end the others. The runs'
    stack_key()s must be equal. Raises Interrupted after a signal, when every run has saved its training.
    """
    with Signals() as signals:
        shared = SharedData()
        loop = Loop([Run(with_steps(config), signals, shared, should_stop) for config, should_stop in jobs], signals)
        try:
            loop.train()
        except BaseException as error:
            loop.end_active(error)
            if not isinstance(error, Exception):
                raise
        return [run.record or loop.errors[run] for run in loop.runs]


class Loop:
    """Runs that are trained together, and the exceptions that ended some of them."""

    def __init__(self, runs: Sequence[Run], signals: Signals):
        self.runs, self.signals = tuple(runs), signals
        self.active: list[Run] = []
        self.errors: dict[Run, BaseException] = {}
        self.stacks: dict[tuple[Run, ...], Stack] = {}

    def train(self) -> None:
        """Prepares all runs, then makes steps until each has ended."""
        self.call_each((run, run.claim) for run in self.runs)
        if self.active:
            self.open_sessions()
        most = len(self.runs)
        while self.active:
            # Where not all fit into memory at once, they take turns: a run that has made a step goes to the end.
            together = self.active[:most]
            results = self.make_step(together)
            if results is None:
                most = len(together) // 2
                print_status(f"too little memory for {len(together)} runs together: {most} at a time")
                continue
            self.clock.count_step(together)
            outcomes = zip(together, results, strict=True)
            self.call_each((run, partial(pass_or_raise, result, run.after_step)) for run, result in outcomes)

    def open_sessions(self) -> None:
        """Loads the model once and gives each run its session."""
        configs = [run.config for run in self.active]
        with self.signals.interrupt_at_once(), report_out_of_memory(loading_remedies(configs[0])):
            sessions = open_sessions(configs)
        self.clock = TrainingClock(next((s.device for s in sessions if isinstance(s, Session)), torch.device("cpu")))
        outcomes = zip(tuple(self.active), sessions, strict=True)
        self.call_each(
            (run, partial(pass_or_raise, session, partial(run.prepare, clock=self.clock))) for run, session in outcomes
        )
        self.clock.settle()  # what was done until here is no training

    def make_step(self, runs: Sequence[Run]) -> list[StepResult | Exception] | None:
        """Makes one optimizer step of the runs together.

        Returns each run's result, or the exception that ends it; None where memory does not suffice for several runs.
        """
        inputs, stack = [run.step_input for run in runs], self.stack_of(runs)
        try:
            with report_out_of_memory(training_remedies(runs[0].config), OutOfMemoryInTraining):
                return train_step(inputs, stack)
        except OutOfMemoryInTraining as error:
            if len(runs) == 1:
                return [error]
        except Exception as error:
            return [error] * len(runs)
        for step in inputs:  # drops the gradients of the batches that did fit
            step.optimizer.zero_grad(set_to_none=True)
        release_memory(stack.device)
        return None

    def stack_of(self, runs: Sequence[Run]) -> Stack:
        """The runs' stack, made once."""
        if (key := tuple(runs)) not in self.stacks:
            self.stacks[key] = Stack([run.session for run in runs])
        return self.stacks[key]

    # Errors: an Exception ends one run, anything else ends all of them

    def call_each(self, calls: Iterable[tuple[Run, Callable[[], None]]]) -> None:
        """Calls each run's function. A run stays active unless it is finished or its function raises.

        After a signal has ended one run, the others' functions are called all the same, so that each run has made the
        same step when it is saved. Then the signal's exception is raised.
        """
        interruption: BaseException | None = None
        for run, function in calls:
            self.active = [other for other in self.active if other is not run]
            try:
                function()
            except BaseException as error:
                error = self.end(run, error)
                if not isinstance(error, Exception):
                    interruption = interruption or error
            else:
                if run.record is None:
                    self.active.append(run)
        if interruption is not None:
            raise interruption

    def end(self, run: Run, error: BaseException) -> BaseException:
        """Ends a run without a record. Returns its error, or what saving its training raised."""
        self.errors[run] = run.end(error)
        return self.errors[run]

    def end_active(self, error: BaseException) -> None:
        """Ends the runs that are still active. After a signal each saves its training."""
        while self.active:
            run = self.active.pop(0)
            self.end(run, Interrupted(error.number) if isinstance(error, Interrupted) else error)


def pass_or_raise(value, function: Callable) -> None:
    """Calls function(value), or raises the value where it is an exception that stands in place of one."""
    if isinstance(value, Exception):
        raise value
    function(value)
