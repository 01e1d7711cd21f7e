"""Signals that end a run: Ctrl-C, and what Slurm and other schedulers send before they kill."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

from adept import parallel

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")


class Stopped(KeyboardInterrupt):
    """A signal ended the run between two steps or within an evaluation. Its text is the line a user sees.

    code: the exit code by which a shell knows the signal, 128 + its number (130 Ctrl-C, 143 SIGTERM, 138 SIGUSR1 on Linux).
    """

    def __init__(self, number: int):
        self.number, self.name, self.code = number, signal.Signals(number).name, 128 + number
        super().__init__(f"stopped by {self.name}; finished runs are recorded, the same command goes on")


class Signals:
    """As a context manager: a signal waits for the next check(), or raises Stopped at once inside at_once().

    Leaving it raises Stopped for a signal that is still waiting. A second Ctrl-C raises KeyboardInterrupt where it comes. Only the
    main thread can catch signals: in others this does nothing. A signal that the process was told to ignore (nohup) stays ignored.
    """

    def __init__(self):
        self.received: int | None = None
        self.immediate = False
        self.before: dict[int, object] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
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

    def check(self, told: int = 0) -> None:
        """Raises Stopped if a signal came. Several processes stop together: for what each was `told`, not for what came to it since."""
        if number := self.received if parallel.WORLD == 1 else told:
            raise Stopped(number)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """For work that can be broken off anywhere, unless other processes take part in it."""
        self.immediate = parallel.WORLD == 1
        try:
            self.check()
            yield
        finally:
            self.immediate = False


def told(stop: KeyboardInterrupt) -> int:
    """For a command line's end: says what became of the run and returns the exit code."""
    if parallel.RANK == 0:
        print(str(stop) or "interrupted; finished runs are recorded, the same command goes on from the last checkpoint", file=sys.stderr)
    return getattr(stop, "code", 130)
