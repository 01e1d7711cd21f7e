"""Signals that end a run: Ctrl-C, and what Slurm and other schedulers send before they kill."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from adept.base import distributed

SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")


class Interrupted(KeyboardInterrupt):
    """A signal ended the run between two steps or within an evaluation. Its text is the line that a user sees.

    code: the exit code that a shell expects, 128 + the signal's number (130 Ctrl-C, 143 SIGTERM, 138 SIGUSR1 on Linux).
    """

    def __init__(self, number: int):
        self.number, self.name, self.code = number, signal.Signals(number).name, 128 + number
        super().__init__(f"stopped by {self.name}; finished runs are recorded, the same command goes on")


class Signals:
    """A context manager inside which a signal waits for the next check(), which raises Interrupted.

    Inside interrupt_at_once() it does not wait. On leaving the context, a signal that still waits raises Interrupted. A
    second Ctrl-C raises KeyboardInterrupt wherever the program is. Only the main thread can catch signals; in other
    threads this does nothing. A signal that the process ignores (nohup) stays ignored.
    """

    def __init__(self):
        self.received: int | None = None
        self.immediate = False
        self.previous_handlers: dict[int, object] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
                if signal.getsignal(number) not in (
                    signal.SIG_IGN,
                    None,
                ):  # None: Python did not set it and cannot restore it
                    self.previous_handlers[number] = signal.signal(number, self.handle)
        return self

    def __exit__(self, kind, *_):
        for number, handler in self.previous_handlers.items():
            if signal.getsignal(number) == self.handle:  # else it was set anew inside, to stay (a lost process)
                signal.signal(number, handler)
        if kind is None:
            self.check()

    def handle(self, number: int, _) -> None:
        """The signal handler."""
        again, self.received = self.received is not None, number
        if self.immediate:
            self.check()
        elif again and number == signal.SIGINT:
            raise KeyboardInterrupt

    def check(self, agreed: int = 0) -> None:
        """Raises Interrupted if a signal came.

        agreed: of several processes, the signal that all of them know (0: none). They must stop at the same step, so a
        signal that only one of them knows waits.
        """
        if number := self.received if distributed.WORLD == 1 else agreed:
            raise Interrupted(number)

    @contextlib.contextmanager
    def interrupt_at_once(self) -> Iterator[None]:
        """Inside, a signal raises Interrupted at once, except where several processes work together.

        For work that can be broken off anywhere.
        """
        self.immediate = distributed.WORLD == 1
        try:
            self.check()
            yield
        finally:
            self.immediate = False
