"""Signals that end a run: Ctrl-C, and what Slurm and other schedulers send before they kill."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from adept.base import distributed

SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")


class Interrupted(KeyboardInterrupt):
    """A signal ended the run between two steps or within an evaluation. Its text is the line a user sees.

    code: the exit code by which a shell knows the signal, 128 + its number (130 Ctrl-C, 143 SIGTERM, 138 SIGUSR1 on
    Linux).
    """

    def __init__(self, number: int):
        self.number, self.name, self.code = number, signal.Signals(number).name, 128 + number
        super().__init__(f"stopped by {self.name}; finished runs are recorded, the same command goes on")


class Signals:
    """As a context manager: a signal waits for the next check(), or raises Interrupted at once inside
    interrupt_at_once().

    Leaving it raises Interrupted for a signal that is still waiting. A second Ctrl-C raises KeyboardInterrupt where it
    comes. Only the main thread can catch signals: in others this does nothing. A signal that the process was told to
    ignore (nohup) stays ignored.
    """

    def __init__(self):
        self.received: int | None = None
        self.immediate = False
        self.before: dict[int, object] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: not Python's to put back
                    self.before[number] = signal.signal(number, self.handle)
        return self

    def __exit__(self, kind, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if kind is None:
            self.check()

    def handle(self, number: int, _) -> None:
        again, self.received = self.received is not None, number
        if self.immediate:
            self.check()
        elif again and number == signal.SIGINT:
            raise KeyboardInterrupt

    def check(self, agreed: int = 0) -> None:
        """Raises Interrupted if a signal came.

        agreed: the signal that several processes have agreed on. They stop together: for this one, not for what came to
        one of them since.
        """
        if number := self.received if distributed.WORLD == 1 else agreed:
            raise Interrupted(number)

    @contextlib.contextmanager
    def interrupt_at_once(self) -> Iterator[None]:
        """For work that can be broken off anywhere, unless other processes take part in it."""
        self.immediate = distributed.WORLD == 1
        try:
            self.check()
            yield
        finally:
            self.immediate = False
