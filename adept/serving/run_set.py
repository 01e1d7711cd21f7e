"""The trained runs that a prediction asks: in one batch where they can share one, else one after another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adept.base.console import print_status
from adept.base.digests import folder_digest
from adept.base.errors import UserError, nearest
from adept.config.combinations import check_combination
from adept.config.run import RunConfig, task_of
from adept.runs.adapter import TASK_FILE, find_adapter
from adept.serving.bank import Bank, Request, differing_options, why_not_banked
from adept.serving.load import Answer, TrainedSession, config_with, load
from adept.tasks.task import Task
from adept.training.memory import loading_remedies, report_out_of_memory

ADAPTER_FILES = ("adapter*", TASK_FILE)
"""Patterns of the files that decide what a run answers."""


class RunSet:
    """Trained runs, read when it is made and loaded by load()."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        results_dir: str = "results",
        beams: int = 1,
        probabilities: bool = False,
        **overrides: Any,
    ):
        """names: run ids under results_dir, or adapter folders. beams: of a search in place of greedy decoding.

        probabilities: of the labels, also where answers are generated. overrides: options to change, as for load().
        Raises UserError for a run that cannot be read, and for what one of the runs cannot do.
        """
        if twice := next((name for name in names if list(names).count(name) > 1), None):
            raise UserError(f"the run '{twice}' is named twice")
        self.names, self.results_dir, self.overrides = tuple(names), results_dir, overrides
        self.beams, self.with_probabilities = beams, probabilities
        self.folders = {name: find_adapter(name, results_dir) for name in names}
        self.configs = {name: config_with(folder, overrides) for name, folder in self.folders.items()}
        self.tasks: dict[str, Task] = {name: task_of(config) for name, config in self.configs.items()}
        for name in names:
            self.check(name)
        self.bank_of: dict[str, Bank] = {}
        self.session_of: dict[str, TrainedSession] = {}

    def check(self, name: str) -> None:
        """Raises UserError for what the run cannot do."""
        config, task = self.configs[name], self.tasks[name]
        check_combination(config, task)
        if self.with_probabilities and task.labels is None:
            raise UserError(f"{name}: task '{task.name}' has free targets, so its answers have no label probabilities")
        if self.beams < 1:
            raise UserError(f"--beams must be a whole number >= 1, not {self.beams}")
        if self.beams > 1 and config.scoring == "likelihood":
            raise UserError(f"{name}: --beams has no effect on --scoring likelihood, which generates nothing")
        if self.beams > 1 and task.sampling is not None and task.sampling.temperature:
            raise UserError(f"{name}: --beams has no effect on task '{task.name}', which draws samples")

    def find(self, name: str) -> str:
        """The run of that id, or of that adapter folder. Raises UserError that names the nearest."""
        short = {Path(own).name: own for own in self.names}
        if name not in short and name not in self.names:
            raise UserError(f"no run {name!r:.80} was asked for; {nearest(str(name), short)}")
        return name if name in self.names else short[name]

    def identity(self) -> dict[str, str]:
        """{run: digest of its adapter and its configuration}: which runs these are, wherever they lie."""
        return {Path(name).name: folder_digest(folder, ADAPTER_FILES) for name, folder in self.folders.items()}

    def load(self) -> None:
        """Loads the runs: those that can share a batch into banks, the others each by itself."""
        for group in self.groups():
            with report_out_of_memory(loading_remedies(self.configs[group[0]])):
                if len(group) == 1:
                    self.session_of[group[0]] = load(group[0], results_dir=self.results_dir, **self.overrides)
                else:
                    bank = Bank(group, results_dir=self.results_dir, **self.overrides)
                    self.bank_of.update(dict.fromkeys(group, bank))
                    print_status(f"{len(group)} runs answer in one batch")
        for name in self.session_of if len(self.names) > 1 else ():
            reason = why_not_banked(self.configs[name]) or "no other run has its model, precision and kind of method"
            print_status(f"{name} answers by itself: {reason}")

    def groups(self) -> list[list[str]]:
        """The runs by what they can share a batch with."""
        groups: list[list[str]] = []
        for name, config in self.configs.items():
            fitting = next((group for group in groups if self.can_share(self.configs[group[0]], config)), None)
            if fitting is None:
                groups.append([name])
            else:
                fitting.append(name)
        return groups

    @staticmethod
    def can_share(one: RunConfig, other: RunConfig) -> bool:
        """Whether two runs can share a batch."""
        return not any(map(why_not_banked, (one, other))) and not differing_options(one, other)

    def answers(self, requests: Sequence[Request]) -> list[Answer]:
        """The answer to each (run, source text), after load(). Raises UserError where the memory is too small."""
        size = max(config.eval_batch_size for config in self.configs.values())
        smaller = f"--eval_batch_size {size // 2} (now {size})" if size > 1 else "a smaller --model or --precision bf16"
        with report_out_of_memory(f"while answering: {smaller} needs less, and the same command goes on"):
            return self.answers_of_all(requests)

    def answers_of_all(self, requests: Sequence[Request]) -> list[Answer]:
        """The bank's answers and those of the sessions, in the order of the requests."""
        found: dict[int, Answer] = {}
        for bank in dict.fromkeys(self.bank_of.values()):
            numbers = [i for i, (name, _) in enumerate(requests) if self.bank_of.get(name) is bank]
            own = bank.answers([requests[i] for i in numbers], self.beams, probabilities=self.with_probabilities)
            found.update(zip(numbers, own, strict=True))
        for name, session in self.session_of.items():
            numbers = [i for i, (run, _) in enumerate(requests) if run == name]
            sources = [requests[i][1] for i in numbers]
            own = session.answers(sources, self.beams, probabilities=self.with_probabilities)
            found.update(zip(numbers, own, strict=True))
        return [found[i] for i in range(len(requests))]
