"""A worker process of local.py, which sends it stacks through a pipe.

python -m adept.tables.launchers.worker FD: the file descriptor of the pipe.
"""

from __future__ import annotations

import faulthandler
import multiprocessing.connection
import sys

from adept.tables.launchers.run_stack import run_stack_logged


def worker_main(pipe: multiprocessing.connection.Connection) -> int:
    """Receives stacks and sends their outcomes until the pipe closes. Returns the exit code."""
    faulthandler.enable()  # after a crash in C the log says where
    while True:
        try:
            stack = pipe.recv()
        except EOFError:
            return 0
        try:
            pipe.send(run_stack_logged(stack))
        except KeyboardInterrupt as interrupted:  # the runs have saved their training
            return getattr(interrupted, "code", 130)
        except OSError:  # the sweep is gone; the runs have written their records
            return 0


if __name__ == "__main__":
    sys.exit(worker_main(multiprocessing.connection.Connection(int(sys.argv[1]))))
