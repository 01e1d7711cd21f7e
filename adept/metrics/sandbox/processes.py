"""Starts the children, ends them, and finds out by which layers this system can confine them."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import marshal
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adept.metrics.sandbox.confinement import LAYERS
from adept.metrics.sandbox.wire import EXITED

SCRIPT = "sandbox.pyc"
CHILD_MODULES = ("confinement", "wire", "candidate", "judge", "probe")


def child_sources() -> dict[str, str]:
    """Returns {module: source} of the children's modules and of their script, "child"."""
    folder = Path(__file__).parent
    return {name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in (*CHILD_MODULES, "child")}


def compile_script(sources: Mapping[str, str]) -> bytes:
    """Returns child.py as a .pyc file that holds the other modules too, compiled, in the constant BUNDLED_MODULES."""
    modules = tuple((name, compile(sources[name], f"{name}.py", "exec")) for name in CHILD_MODULES)
    script = compile(sources["child"], "child.py", "exec")
    constants = tuple(modules if constant == "BUNDLED_MODULES" else constant for constant in script.co_consts)
    header = importlib.util.MAGIC_NUMBER + bytes(12)  # no flags, no time, no size: the source is not looked for
    return header + marshal.dumps(script.replace(co_consts=constants))


@functools.cache
def child_script() -> bytes:
    """The children's script. Compiled once here: compiling in the child would take a quarter of its time."""
    return compile_script(child_sources())


@contextlib.contextmanager
def script_folder() -> Iterator[Path]:
    """Yields a temporary folder that holds nothing but the children's script."""
    with tempfile.TemporaryDirectory(prefix="adept-sandbox-") as folder:
        (Path(folder) / SCRIPT).write_bytes(child_script())
        yield Path(folder)


def start_child(role: str, folder: Path, *descriptors: int, **pipes: Any) -> subprocess.Popen:
    """Starts the script of `folder` in that folder, in a process group of its own.

    Args:
        role: "candidate", "judge" or "probe".
        descriptors: file descriptors that the child inherits and gets as arguments.
        pipes: stdin and stdout, as subprocess.Popen takes them.
    """
    # -s -S -P: no user's or installed packages, nothing from the working folder; -B: no bytecode is written.
    # Not -I, which would ignore PYTHONHASHSEED.
    command = [sys.executable, "-s", "-S", "-P", "-B", str(folder / SCRIPT), role, *map(str, descriptors)]
    environment = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}  # a run is repeatable, and sees nothing of the user's
    if "LD_LIBRARY_PATH" in os.environ:  # a Python outside the system's folders may not start without it
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        pass_fds=descriptors,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        **pipes,
    )


def kill_child(process: subprocess.Popen) -> None:
    """Kills the child's process group, waits for the child and closes its pipes."""
    if process.returncode is None:  # else its number may be another process's by now
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def exit_reason(process: subprocess.Popen) -> str:
    """Returns in a few words how the child ended; waits up to 1 s for it."""
    try:
        status = process.wait(timeout=1)
    except subprocess.TimeoutExpired:  # it has closed its pipes, but has not ended
        return EXITED
    return f"died of {signal.Signals(-status).name}" if status < 0 else f"{EXITED} with status {status}"


@functools.cache
def available_layers() -> dict[str, bool]:
    """Returns {layer: whether this system has it} for "namespaces", "landlock" and "seccomp", found by trying."""
    available = {}
    if sys.platform == "linux":
        with script_folder() as folder:
            probe = start_child("probe", folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            output, _ = probe.communicate()
        available = json.loads(output or "{}")  # empty if a filter that is not meant for this machine killed it
    return {name: available.get(name, False) for name in LAYERS}
