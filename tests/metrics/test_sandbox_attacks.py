"""Hostile programs in the sandbox: none passes, none does harm, none outlives its limits."""

import contextlib
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import ROOT
from sandbox_programs import ATTACKS, CHECK, FORGERIES, HOGS, READING, SYSCALL, original

from adept.metrics.sandbox import LIMITS, Limits, Program, Verdict, available_layers, run

needs_seccomp = pytest.mark.skipif(
    not available_layers()["seccomp"], reason="programs are run on Linux with seccomp only"
)
SHORT = Limits(seconds=2, memory_bytes=2**28)
MADE = "made-by-test-sandbox"  # the file that an attack tries to write


@pytest.fixture
def world(tmp_path, monkeypatch):
    """What a program could harm. After the test: nothing changed, nobody called, nobody killed, nothing left."""
    outside, temporary = tmp_path / "outside", tmp_path / "temporary"
    for folder in (outside, outside / "folder", temporary):
        folder.mkdir()
    (outside / "precious").write_text("precious")
    (outside / "secret").write_text("a-secret-of-the-user")
    (outside / "folder" / "file").write_text("file")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("SECRET_TOKEN", "a-secret-of-the-user")
    monkeypatch.chdir(outside)
    with contextlib.ExitStack() as stack:
        signals = []
        for number in (signal.SIGUSR1, signal.SIGCONT):
            stack.callback(signal.signal, number, signal.signal(number, lambda number, _: signals.append(number)))
        bystander = stack.enter_context(subprocess.Popen(["sleep", "60"], start_new_session=True))
        stack.callback(bystander.kill)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind("socket")
        unix.listen()
        for listener in (tcp, udp, unix):
            listener.setblocking(False)
        before, memory = snapshot(outside), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        yield {
            "outside": outside,
            "made": MADE,
            "package": ROOT / "adept",
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "parent": os.getpid(),
            "group": os.getpgrp(),
            "bystander": bystander.pid,
            "clone": 56 if platform.machine() == "x86_64" else 220,
        }

        assert snapshot(outside) == before
        elsewhere = [folder / MADE for folder in (Path.home(), ROOT / "adept", Path("/dev/shm"))]
        written = [path for path in elsewhere if path.exists()]
        for path in written:
            path.unlink()
        assert written == []
        for ask in (tcp.accept, lambda: udp.recv(9), unix.accept):
            with pytest.raises(BlockingIOError):
                ask()
        assert signals == []
        assert bystander.poll() is None
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 64 * 1024  # KiB
        assert running_children(temporary) == []
        assert os.listdir(temporary) == []


def snapshot(folder: Path) -> dict:
    """{path: what a program could have changed of it}."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        about = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        found[path] = (about.st_mode, about.st_uid, about.st_nlink, about.st_mtime_ns, content, os.listxattr(path))
    return found


def running_children(temporary: Path) -> list[str]:
    """Command lines of the processes that were started from a folder in `temporary`, and their forks."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_text(errors="replace")
        except OSError:  # it has just ended
            continue
        if str(temporary) in line:
            found.append(line.replace("\0", " "))
    return found


@pytest.fixture(params=["all layers", "seccomp alone"])
def layers(request):
    """Each attack is refused twice: by all that the system has, and where it has nothing but seccomp."""
    if request.param == "seccomp alone":
        request.getfixturevalue("only_seccomp")


def attack(code: str, world: dict, limits: Limits = LIMITS) -> str:
    """The reason why it did not pass, within its time."""
    for name, value in world.items():
        code = code.replace("{" + name + "}", str(value))
    started = time.monotonic()
    verdict = run(Program(code, original("f(2) == 4", "f(3) == 9"), "f"), limits)
    assert time.monotonic() - started < limits.seconds + 3
    assert not verdict.passed
    return verdict.reason


@needs_seccomp
@pytest.mark.parametrize("name", FORGERIES)
def test_verdicts_are_not_forged(world, name):
    code, reason = FORGERIES[name]
    found = attack(code, world)
    assert reason in (None, found)


@needs_seccomp
@pytest.mark.parametrize("code", ["import os\ndef f(x):\n    os._exit(0)", "import sys\ndef f(x):\n    sys.exit()"])
def test_an_exit_is_no_expected_exception(code):
    tests = CHECK + "    try:\n        candidate(2)\n    except Exception:\n        pass\n"
    verdict = run(Program(code, tests, "f"))
    assert not verdict.passed and verdict.reason.startswith("exited early")
    assert run(Program("def f(x):\n    raise ValueError", tests, "f")).passed


@needs_seccomp
@pytest.mark.parametrize("name", HOGS)
def test_time_memory_and_output_are_bounded(world, name):
    code, reason = HOGS[name]
    found = attack(code, world, SHORT)
    assert reason is None or found.startswith(reason)


@needs_seccomp
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_refused(world, layers, name):
    code = ATTACKS[name] + "\n\ndef f(x):\n    return 0\n" * ("def f" not in ATTACKS[name])
    assert attack(code, world).startswith(("OSError", "PermissionError"))


@needs_seccomp
def test_threads_are_refused(world):
    bomb = (
        "import threading, time\ndef f(x):\n    for _ in range(300):\n"
        "        threading.Thread(target=time.sleep, args=(30,)).start()"
    )
    assert attack(bomb, world) == "RuntimeError: can't start new thread"


@needs_seccomp
@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86_64's other system call tables")
def test_the_other_system_calls_of_x86_64_are_refused(world):
    assert attack(SYSCALL + "must(libc.syscall(0x40000000 + 41, 2, 1, 0))", world) == "OSError: refused"  # x32: socket
    socket_of_i386 = "b'\\xb8\\x67\\x01\\x00\\x00\\xcd\\x80\\xc3'"  # mov eax, 359; int 0x80; ret
    jump = f"import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write({socket_of_i386})\n"
    jump += "ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()"
    assert attack(jump, world) == "died of SIGSYS"


@needs_seccomp
@pytest.mark.skipif(not available_layers()["landlock"], reason="without Landlock programs can read the user's files")
@pytest.mark.parametrize("name", READING)
def test_files_of_the_user_are_not_read(world, name):
    path = READING[name]
    reading = (
        f"import os\nopen('{path}', 'rb').read(9)"
        if name != "a folder of the user"
        else f"import os\nos.listdir('{path}')"
    )
    assert attack(reading, world).startswith("PermissionError")


@needs_seccomp
def test_the_environment_and_open_files_are_not_inherited(world):
    with open("secret") as file:
        os.set_inheritable(file.fileno(), True)
        reason = attack("import os\nraise ValueError(dict(os.environ))", world)
        assert reason.startswith("ValueError: {'PYTHONHASHSEED'") and "SECRET" not in reason
        readers = (
            "import os\nfor n in range(64):\n    try:\n        os.fstat(n)\n    except OSError:\n"
            "        raise ValueError(n)"
        )
        assert attack(readers, world) == "ValueError: 5"  # 0 to 2: /dev/null; 3 and 4: the pipes
    assert attack("import os\nraise ValueError(os.listdir(), os.getcwd())", world).startswith(
        "ValueError: (['sandbox.pyc']"
    )


@needs_seccomp
def test_the_candidate_loads_neither_the_judge_nor_anything_of_adept_from_disk(world):
    loaded = "import sys\nraise ValueError([name for name in sys.modules if name.startswith('adept')])"
    modules = [f"adept.metrics.sandbox.{name}" for name in ("confinement", "wire", "candidate")]
    assert attack(loaded, world) == f"ValueError: {modules}"
    assert attack("import adept", world) == "ModuleNotFoundError: No module named 'adept'"


@needs_seccomp
@pytest.mark.skipif(not available_layers()["namespaces"], reason="no namespaces here")
def test_the_network_is_another(world):
    reason = attack("import os\nraise ValueError(os.readlink('/proc/self/ns/net'))", world)
    assert reason.startswith("ValueError: net:[")
    assert os.readlink("/proc/self/ns/net") not in reason


ACCOUNT = """
import re
text = open('/proc/self/status').read() + open('/proc/self/limits').read()
def f(line):
    return re.search(f'^{line}:? +(.*)$', re.sub('[ \\t]+', ' ', text), re.M)[1]
"""


@needs_seccomp
def test_privileges_and_limits_are_given_up(only_seccomp):
    expected = {
        "CapPrm": "0" * 16, "CapEff": "0" * 16, "CapInh": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2",
        "Max cpu time": "17 17 seconds",
        "Max file size": "0 0 bytes", "Max core file size": "0 0 bytes", "Max processes": "0 0 processes",
        "Max open files": "64 64 files", "Max address space": "1073741824 1073741824 bytes",
    }  # fmt: skip
    for line, value in expected.items():
        assert run(Program(ACCOUNT, f"assert f({line!r}).strip() == {value!r}", "f")) == Verdict(True, "passed"), line


@needs_seccomp
def test_the_judges_memory_is_closed_even_without_landlock(world, only_seccomp):
    code = (
        "import glob, os\ndef f(x):\n    for path in glob.glob('/proc/[0-9]*/cmdline'):\n"
        "        words = open(path).read().split('\\0')\n"
        "        if 'judge' in words and words[5].startswith('{temporary}'):\n"
        "            open(os.path.dirname(path) + '/mem', 'rb')"
    )
    code = code.replace("{temporary}", tempfile.gettempdir())
    assert attack(code, world).startswith("PermissionError: [Errno 13] Permission denied: '/proc/")


@needs_seccomp
def test_children_do_not_outlive_a_killed_caller(world, tmp_path):
    code = (
        "import sys\nfrom adept.metrics.sandbox import Program, run\n"
        "run(Program('import time\\ntime.sleep(30)', 'f()', 'f'))"
    )
    temporary = tmp_path / "other"
    temporary.mkdir()
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "TMPDIR": str(temporary)})
    wait_until(lambda: len(running_children(temporary)) == 2)
    process.kill()
    process.wait()
    wait_until(lambda: not running_children(temporary))


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
