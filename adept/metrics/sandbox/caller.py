"""What the rest of adept calls: runs programs against their tests, and says what protects the machine from them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from adept.base.errors import UserError
from adept.metrics.sandbox.processes import available_layers, exit_reason, kill_child, script_folder, start_child
from adept.metrics.sandbox.wire import EXITED


@dataclass(frozen=True)
class Program:
    """A generated program and the tests of its task."""

    code: str
    """Untrusted: prompt and completion, which define the function."""
    tests: str
    """Trusted, from the data set: defines check(candidate) (MBXP), or is "assert f(...) == ..." lines (MBPP)."""
    entry_point: str
    """The name of the function under test."""


@dataclass(frozen=True)
class Verdict:
    """Whether a program passes its tests."""

    passed: bool
    reason: str
    """"passed", or in a few words why not: "assertion failed", "syntax error: ...", "timed out after 15 s"."""


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Output, files and processes need no limit: output goes nowhere, files and processes are forbidden.
    """

    seconds: float = 15.0
    """Wall clock, including the start of both processes (mxeval's limit)."""
    memory_bytes: int = 2**30
    """Address space of the candidate's process, and of the judge's."""
    result_bytes: int = 2**24
    """Length of one result as JSON."""


LIMITS = Limits()

SELF_TEST = Program(
    code="""
import os, socket
def holes():
    signal, write, make = lambda: os.kill(os.getppid(), 0), lambda: open("file", "w"), lambda: os.mkdir("folder")
    found = []
    for attempt in (socket.socket, os.fork, signal, write, make):
        try:
            attempt()
            found.append(attempt)
        except OSError:
            pass
    return len(found)
""",
    tests="assert holes() == 0",
    entry_point="holes",
)
"""Passes if the sandbox works and refuses what it must refuse."""


def run(program: Program, limits: Limits = LIMITS) -> Verdict:
    """Runs the program against its tests. Raises UserError if this system has no seccomp; then nothing has been run."""
    layers = [name for name, available in available_layers().items() if available]
    if "seccomp" not in layers:
        raise UserError(missing_seccomp())
    confinement = {
        "layers": layers,
        "caller": os.getpid(),
        "seconds": limits.seconds,
        "memory_bytes": limits.memory_bytes,
    }
    job = {**asdict(program), "confinement": confinement, "result_bytes": limits.result_bytes}
    message = json.dumps(job).encode() + b"\n"
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(script_folder())
        with contextlib.ExitStack() as ends:  # the caller's copies of the pipes, which the children inherit
            request_out, request_in = os.pipe()
            reply_out, reply_in = os.pipe()
            for end in (request_out, request_in, reply_out, reply_in):
                ends.callback(os.close, end)
            candidate = start_child("candidate", folder, stdin=request_out, stdout=reply_in)
            stack.callback(kill_child, candidate)
            judge = start_child("judge", folder, request_in, reply_out, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.callback(kill_child, judge)
        try:
            output, _ = judge.communicate(message, timeout=limits.seconds)
        except subprocess.TimeoutExpired:
            return Verdict(False, f"timed out after {limits.seconds:g} s")
        if not output:
            return Verdict(False, f"the judge {exit_reason(judge)}")
        verdict = Verdict(**json.loads(output))
        if verdict.reason == EXITED:
            verdict = Verdict(False, exit_reason(candidate))
        return verdict


def run_all(programs: Sequence[Program], limits: Limits = LIMITS, workers: int | None = None) -> list[Verdict]:
    """Runs the programs, `workers` at a time (None: one per CPU), and returns their verdicts in the same order."""
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        return list(pool.map(lambda program: run(program, limits), programs))


def missing_seccomp() -> str:
    """Returns the error message for a system without seccomp."""
    if sys.platform != "linux":
        reason, remedy = (
            f"Linux only, under seccomp; this is {sys.platform}",
            "run this task on Linux or in a container",
        )
        return f"generated programs are run on {reason}: {remedy}"
    reason, supported = "which this system does not allow", "x86_64 and aarch64 kernels have it"
    return f"generated programs are run under seccomp only, {reason} ({supported})"


def require_protection() -> str:
    """Returns one line that names the layers in use.

    Raises UserError if programs cannot be run here, or cannot be kept from the network and from writing.
    """
    verdict = run(SELF_TEST)
    if not verdict.passed:
        problem = f"the sandbox's own check says {verdict.reason!r}"
        raise UserError(f"generated programs cannot be run safely here: {problem}")
    layers = available_layers()
    line = f"generated programs run under {', '.join(name for name in layers if layers[name])}"
    if not layers["landlock"]:
        line += "; no landlock, so they could read this user's files, but send them nowhere (seccomp)"
    if not layers["namespaces"]:
        line += "; no namespaces, the network is closed by seccomp"
    return line
