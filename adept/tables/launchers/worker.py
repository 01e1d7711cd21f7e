"""A worker process of launchers/local.py, which talks to it through a pipe.

python -m adept.tables.launchers.worker FD: the pipe's file descriptor.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import multiprocessing.connection
import sys

from adept.tables.launchers.run_stack import run_stack_logged


def worker_main(pipe: multiprocessing.connection.Connection) -> int:
    """A worker's life: runs in, outcomes out, until the pipe closes. Returns the exit code."""
    faulthandler.enable()  # a crash in C shows its place in the log
    while True:
        try:
            stack = pipe.recv()
        except EOFError:
            return 0
        try:
            pipe.send(run_stack_logged(stack))
        except KeyboardInterrupt as signalled:  # the runs' training is saved
            return getattr(signalled, "code", 130)
        except OSError:  # the sweep is gone; the runs are recorded
            return 0


if __name__ == "__main__":
    sys.exit(worker_main(multiprocessing.connection.Connection(int(sys.argv[1]))))
