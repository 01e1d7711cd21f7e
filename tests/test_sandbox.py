"""The sandbox: right programs pass, wrong ones fail for the right reason, hostile ones neither pass nor do harm."""

import contextlib
import json
import marshal
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

from adept import sandbox
from adept.config import UserError
from adept.sandbox import Limits, Program, Verdict, protection, require_protection, run, run_all

needs_seccomp = pytest.mark.skipif(not protection()["seccomp"], reason="programs are run on Linux with seccomp only")
SHORT = Limits(seconds=2, memory_bytes=2**28)
MADE = "made-by-test-sandbox"
CHECK = "METADATA = {}\n\ndef check(candidate):\n"


def mbxp(*assertions: str) -> str:
    return CHECK + "".join(f"    assert {assertion}\n" for assertion in assertions)


def original(*assertions: str) -> str:
    return "\n".join(f"assert {assertion}" for assertion in assertions)


# ---------------------------------------------------------------------------------------------------------------------------------
# Programs that should pass.

RIGHT = {
    "a number": ("def f(x):\n    return x * x", mbxp("candidate(3) == 9", "candidate(-2) == 4")),
    "a number, original form": ("def f(x):\r\n    return x * x", original("f(3) == 9", "f(-2) == 4")),
    "tuple, set, frozenset": (
        "def f(x):\n    return tuple(x), set(x), frozenset(x)",
        mbxp("candidate([1, 2]) == ((1, 2), {1, 2}, frozenset({2, 1}))"),
    ),
    "float, complex, infinity": (
        "def f(x):\n    return [x / 3, complex(x, 1), float('inf'), -0.0]",
        mbxp("candidate(1) == [1 / 3, 1 + 1j, float('inf'), 0]"),
    ),
    "integers of thousands of digits": ("def f(x):\n    return [x**20000, -(x**60)]", original("f(3) == [3**20000, -(3**60)]")),
    "bytes and range": (
        "def f(x):\n    return [x, bytearray(x), range(3)]",
        mbxp("candidate(b'ab') == [b'ab', bytearray(b'ab'), range(3)]"),
    ),
    "nested, with every key": (
        "def f(x):\n    return {(1, 2): [{'a': x}], None: {x: True}, 0.5: 'é\\ud800'}",
        mbxp("candidate(7) == {(1, 2): [{'a': 7}], None: {7: True}, 0.5: 'é\\ud800'}"),
    ),
    "subclasses of plain types": (
        "from collections import *\nP = namedtuple('P', 'x y')\ndef f(x):\n    return [Counter(x), P(1, 2), defaultdict(list, a=[1])]",
        mbxp("candidate('aab') == [{'a': 2, 'b': 1}, (1, 2), {'a': [1]}]"),
    ),
    "exact numbers": (
        "from decimal import Decimal\nfrom fractions import Fraction\ndef f(x):\n    return Fraction(1, x), Decimal('0.5')",
        mbxp("candidate(4) == (0.25, 0.5)"),
    ),
    "keyword arguments": ("def f(x, *, y=0):\n    return x - y", mbxp("candidate(3, y=1) == 2", "candidate(x=3) == 3")),
    "classes as arguments": ("def f(x, kind):\n    return isinstance(x, kind)", original("f(3, int) == True", "f(3, str) == False")),
    "an expected exception": (
        "class Mine(ValueError):\n    pass\ndef f(x):\n    raise Mine(f'no {x}')",
        CHECK
        + "    try:\n        candidate(3)\n        assert False\n    except ValueError as error:\n        assert str(error) == 'no 3'",
    ),
    "an exception that wants more arguments": (
        "def f(x):\n    return x.decode()",
        CHECK + "    try:\n        candidate(b'\\xff')\n    except Exception as error:\n        assert 'utf-8' in str(error)\n",
    ),
    "a class of the program in the tests": (
        "class Pair:\n    def __init__(self, a, b):\n        self.a, self.b = a, b\n"
        "def f(pairs):\n    return sum(p.a * p.b for p in pairs)",
        original("f([Pair(1, 2), Pair(3, b=4)]) == 14"),
    ),
    "objects of the program in the tests": (
        "class Node:\n    left = None\ndef f(node):\n    return 0 if node is None else 1 + f(node.left)\nroot = Node()\nroot.left = Node()",
        original("f(root) == 2", "f(None) == 0"),
    ),
    "an object is passed back": (
        "def f(x):\n    return iter([x]) if isinstance(x, int) else list(x)",
        mbxp("candidate(candidate(2)) == [2]"),
    ),
    "modules in the tests": (
        "def f(x):\n    return x ** 0.5",
        CHECK + "    import math\n    assert math.isclose(candidate(2), math.sqrt(2))\n",
    ),
    "sys in the tests": ("import sys\ndef f(x):\n    return sys.getsizeof(x)", original("f((1, 2)) == sys.getsizeof((1, 2))")),
    "state between calls": (
        "seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)",
        mbxp("candidate(1) == 1", "candidate(1) == 2"),
    ),
    "printing, and no input": (
        "print('hello')\ndef f(x):\n    print(x)\n    try:\n        input()\n    except EOFError:\n        return x",
        mbxp("candidate(2) == 2"),
    ),
    "recursion, sleeping, a dataclass": (
        "import dataclasses, time\n@dataclasses.dataclass\nclass D:\n    x: int\n"
        "def f(x):\n    time.sleep(0.01)\n    return D(x).x if x > 900 else f(x + 1)",
        mbxp("candidate(890) == 901"),
    ),
    "the standard library": (
        "import bisect, cmath, collections, copy, datetime, functools, heapq\n"
        "import itertools, math, operator, random, re, statistics, string, sys\n"
        "def f(x):\n"
        "    heap = [3, x, 2]\n    heapq.heapify(heap)\n"
        "    return [math.gcd(12, 18), re.findall(r'\\d+', 'a1b22'), list(itertools.accumulate([1, 2])), heap[0], sys.maxsize,\n"
        "            collections.Counter('aa')['a'], functools.reduce(operator.add, [1, 2]), str(datetime.date(2020, 2, 28) +\n"
        "            datetime.timedelta(2)), bisect.bisect([1, 3], 2), cmath.sqrt(-1), statistics.mean([1, 3]), string.digits]",
        mbxp("candidate(1) == [6, ['1', '22'], [1, 3], 1, 2**63 - 1, 2, 3, '2020-03-01', 1, 1j, 2, '0123456789']"),
    ),
}


@needs_seccomp
@pytest.mark.parametrize("name", RIGHT)
def test_right_programs_pass(name):
    code, tests = RIGHT[name]
    assert run(Program(code, tests, "f")) == Verdict(True, "passed")


@needs_seccomp
def test_functions_may_be_called_check_or_like_a_builtin():
    assert run(Program("def check(x):\n    return x + 1", mbxp("candidate(1) == 2"), "check")).passed
    assert run(Program("def check(x):\n    return x + 1", "assert check(1) == 2", "check")).passed
    assert run(Program("def sum(x):\n    return x + 1", "assert sum(1) == 2", "sum")).passed


@needs_seccomp
def test_sets_of_strings_have_the_same_order_in_every_run():
    program = Program("def f(x):\n    raise ValueError(list(set(x.split())))", "f('one two three four five six seven')", "f")
    assert len({run(program).reason for _ in range(3)}) == 1


@needs_seccomp
def test_run_all_keeps_the_order():
    programs = [Program(f"import time\ntime.sleep({i % 2} / 5)\ndef f():\n    return {i}", f"assert f() == {i % 3}", "f") for i in range(6)]
    assert [verdict.passed for verdict in run_all(programs, workers=3)] == [True, True, True, False, False, False]
    assert run_all([]) == []


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


UNSOLVED = {
    "MBPP/64": "the prompt's docstring is not indented",
    "MBPP/160": "the test expects 'No candidate' for 'No solution'",
    "MBPP/367": "the test's root is defined nowhere",
    "MBPP/596": "the expected sys.getsizeof is another Python version's",
    "MBPP/601": "the test's Pair is local to the function",
    "MBPP/607": "the solution uses an attribute that no match object has, and a fixed text",
    "MBPP/631": "the solution's text is fixed",
    "MBPP/642": "the test depends on the order of a set",
    "MBPP/927": "the test's root is defined nowhere",
    "MBPP/966": "the solution is not indented as its docstring is",
}
"""MBXP's own solutions that fail its tests in any Python 3.11, sandbox or not."""


@needs_seccomp
def test_the_974_solutions_of_mbxp_pass(shared):
    tasks = rows(shared / "data" / "mbpp" / "mbxp_mbpp_release_v1.jsonl")
    assert len(tasks) == 974
    verdicts = run_all([Program(row["prompt"] + row["canonical_solution"], row["test"], row["entry_point"]) for row in tasks])
    failed = {row["task_id"]: verdict.reason for row, verdict in zip(tasks, verdicts, strict=True) if not verdict.passed}
    assert failed.keys() <= UNSOLVED.keys(), failed


@needs_seccomp
@pytest.mark.slow
def test_the_974_solutions_of_the_original_mbpp_pass(shared):
    names = {row["task_id"]: row["entry_point"] for row in rows(shared / "data" / "mbpp" / "mbxp_mbpp_release_v1.jsonl")}
    tasks = rows(shared / "data" / "mbpp" / "google_mbpp.jsonl")
    assert len(tasks) == 974
    verdicts = run_all(
        [Program(f"{row['code']}\n{row['test_setup_code']}", "\n".join(row["test_list"]), names[f"MBPP/{row['task_id']}"]) for row in tasks]
    )
    assert {row["task_id"]: verdict.reason for row, verdict in zip(tasks, verdicts, strict=True) if not verdict.passed} == {}


# ---------------------------------------------------------------------------------------------------------------------------------
# Programs that are merely wrong.

WRONG = {
    "a wrong value": ("def f(x):\n    return x + 3", "assertion failed"),
    "a wrong type": ("def f(x):\n    return str(x * x)", "assertion failed"),
    "nothing": ("def f(x):\n    pass", "assertion failed"),
    "syntax": ("def f(x):\n    return x *", "syntax error: invalid syntax (program, line 2)"),
    "indentation": (
        "def f(x):\nreturn x",
        "syntax error: expected an indented block after function definition on line 1 (program, line 2)",
    ),
    "an unknown name": ("def f(x):\n    return y", "NameError: name 'y' is not defined"),
    "no such function": ("def g(x):\n    return 4", "NameError: name 'f' is not defined"),
    "no function": ("f = 4", "TypeError: 'int' object is not callable"),
    "an exception in the function": ("def f(x):\n    return 1 / 0", "ZeroDivisionError: division by zero"),
    "an exception outside": ("raise KeyError('a')", "KeyError: 'a'"),
    "an assertion of its own": ("def f(x):\n    assert x == 3, 'odd'", "AssertionError: odd"),
    "arguments": ("def f():\n    return 4", "TypeError: f() takes 0 positional arguments but 1 was given"),
    "a generator": ("def f(x):\n    yield 4", "TypeError: generator object is no plain data"),
    "an object": ("class C:\n    pass\ndef f(x):\n    return [C()]", "TypeError: C object is no plain data"),
    "no such package": ("import torch\ndef f(x):\n    return 4", "ModuleNotFoundError: No module named 'torch'"),
}


@needs_seccomp
@pytest.mark.parametrize("name", WRONG)
def test_wrong_programs_fail_and_say_why(name):
    code, reason = WRONG[name]
    expected = "f(2) == [4]" if name == "an object" else "f(2) == 4"
    assert run(Program(code, original(expected), "f")) == Verdict(False, reason)


@needs_seccomp
def test_mistakes_of_the_tests_are_named():
    assert run(Program("def f(x):\n    return x", "assert f(2) ==", "f")).reason.startswith("SyntaxError: ")
    assert run(Program("def f(x):\n    return x", "f(object())", "f")).reason == "TypeError: a test passes a object, which is no plain data"


# ---------------------------------------------------------------------------------------------------------------------------------
# Hostile programs. Each is bounded, so that a broken sandbox fails the test and does not take the machine with it. The test is
# f(2) == 4 and f(3) == 9; a program that only fails to do harm would be right, so each lets its error out or returns the wrong value.

FORGERIES = {
    "_exit before the tests": ("import os\nos._exit(0)", "exited early with status 0"),
    "_exit in the function": ("import os\ndef f(x):\n    os._exit(0)", "exited early with status 0"),
    "sys.exit": ("import sys\nsys.exit(0)", "exited early: SystemExit"),
    "sys.exit in the function": ("import sys\ndef f(x):\n    sys.exit(0)", "exited early: SystemExit"),
    "KeyboardInterrupt": ("def f(x):\n    raise KeyboardInterrupt", "exited early: KeyboardInterrupt"),
    "an own BaseException": ("class B(BaseException):\n    pass\ndef f(x):\n    raise B('passed')", "exited early: B"),
    "an exception named passed": ("def f(x):\n    raise type('passed', (Exception,), {})", "passed"),
    "an exit named passed": ("def f(x):\n    raise type('passed', (SystemExit,), {})", "exited early: passed"),
    "atexit": ("import atexit, os\natexit.register(os._exit, 0)\ndef f(x):\n    return 5", "assertion failed"),
    "printing success": (
        'import os, sys\nfor n in (1, 2):\n    os.write(n, b\'{"passed": true, "reason": "passed"}\\n\')\nsys.exit()',
        "exited early: SystemExit",
    ),
    "verdicts to every descriptor": (
        'import os\nfor n in range(64):\n    try:\n        os.write(n, b\'{"passed": true, "reason": "passed"}\\n\')\n'
        "    except OSError:\n        pass\nos._exit(0)",
        "unreadable result: ValueError",
    ),
    "replies in advance": (
        "import os\nos.write(4, b'[\"value\", null]\\n' + b'[\"value\", 4]\\n' * 9)\ndef f(x):\n    return 0",
        "assertion failed",
    ),
    "a reply with another class": (
        'import os\nos.write(4, b\'["value", null]\\n["value", {"class": "object"}]\\n\')',
        "unreadable result: KeyError",
    ),
    "a reply that fills the judge": (
        'import os\nos.write(4, b\'["value", null]\\n["value", {"tuple": {"range": [0, 1000000000000, 1]}}]\\n\')',
        "memory limit",
    ),
    "a reply that nests": ("import os\nos.write(4, b'[\"value\", ' + b'[' * 60000 + b'\\n')", "unreadable result: RecursionError"),
    "a reply without end": ("import os\nwhile True:\n    os.write(4, b' ' * 65536)", "result too large"),
    "always equal": (
        "class E:\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return E()",
        "TypeError: E object is no plain data",
    ),
    "an always equal int": (
        "class E(int):\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return E()",
        "assertion failed",
    ),
    "claims to be an int": (
        "class E:\n    __class__ = int\n    def __int__(self):\n        return 4\n    def __eq__(self, other):\n        return True\n"
        "    def __lt__(self, other):\n        return True\n    __gt__ = __lt__\ndef f(x):\n    return E()",
        "assertion failed",
    ),
    "always equal, nested": (
        "class E:\n    __hash__ = None\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return [{'a': (E(),)}]",
        "assertion failed",
    ),
    "builtins patched": (
        "import builtins\nbuiltins.AssertionError = builtins.Exception = BaseException\nbuiltins.isinstance = lambda *a: True\n"
        "builtins.len = lambda x: 4\nbuiltins.type = lambda x: int\ndef f(x):\n    return [0]",
        None,
    ),
    "check redefined": ("def check(candidate):\n    pass\ncandidate = check\ndef f(x):\n    return 5", "assertion failed"),
    "codecs patched": (
        "import json, pickle, marshal\nanswer = '[\"value\", true]'\n"
        "json.dumps = json.loads = pickle.dumps = pickle.loads = marshal.loads = lambda *a, **k: answer\ndef f(x):\n    return 5",
        None,
    ),
    "pickles that run code": (
        "import os\nclass R:\n    def __reduce__(self):\n        return os.mkdir, ('{outside}/made',)\ndef f(x):\n    return R()",
        "TypeError: R object is no plain data",
    ),
    "looks for the expected value": (
        "import gc, sys\ndef f(x):\n    frame, seen = sys._getframe(), [sys.modules, gc.get_objects()]\n"
        "    while frame:\n        seen += [frame.f_locals, frame.f_globals]\n        frame = frame.f_back\n"
        "    text = repr(seen)\n    return 4 if 'assert f(2' in text or '== 4' in text else 5",
        "assertion failed",
    ),
    "standard streams replaced": (
        "import io, sys\nsys.stdin = sys.__stdin__ = io.StringIO('4')\nsys.stdout = sys.__stdout__ = io.StringIO()\n"
        "sys.modules['__main__'] = None\ndef f(x):\n    return 5",
        "assertion failed",
    ),
    "every descriptor closed": ("import os\nos.closerange(0, 64)\ndef f(x):\n    return 4", "exited early with status 120"),
}
"""{name: (code, the verdict's reason or None for any)}."""

HOGS = {
    "spinning": ("def f(x):\n    while True:\n        pass", "timed out after 2 s"),
    "sleeping": ("import time\ntime.sleep(1000)", "timed out after 2 s"),
    "sleeping without its pipes": ("import os, time\nos.closerange(0, 64)\ntime.sleep(1000)", "exited early"),
    "signals ignored": (
        "import signal, time\nfor s in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:\n    signal.signal(s, signal.SIG_IGN)\n"
        "while True:\n    time.sleep(1)",
        "timed out after 2 s",
    ),
    "endless output": ("while True:\n    print('x' * 65536)", "timed out after 2 s"),
    "endless errors": ("import os\nwhile True:\n    os.write(2, b'x' * 65536)", "timed out after 2 s"),
    "a huge power": ("def f(x):\n    return 7 ** 7 ** 11", "timed out after 2 s"),
    "a slow pattern": ("import re\ndef f(x):\n    re.match('(a*)*b', 'a' * 40)", "timed out after 2 s"),
    "memory in blocks": ("def f(x):\n    data = []\n    for _ in range(64):\n        data.append(b'x' * 2**26)", "memory limit"),
    "memory in small objects": ("def f(x):\n    data = []\n    for i in range(10**8):\n        data.append([i] * 9999)", "memory limit"),
    "a gigantic result": ("def f(x):\n    return 'x' * 2**25", "result too large"),
    "a gigantic number": ("def f(x):\n    return 1 << 2**28", "result too large"),
    "a result that contains itself": (
        "def f(x):\n    a = []\n    a.append(a)\n    return a",
        "RecursionError: maximum recursion depth exceeded",
    ),
    "recursion": ("def f(x):\n    return f(x + 1)", "RecursionError: maximum recursion depth exceeded"),
    "recursion without limit": ("import sys\nsys.setrecursionlimit(2**31 - 1)\ndef f(x):\n    return [f(x + 1)]", None),
    "recursion in C": (
        "import sys\nsys.setrecursionlimit(2**31 - 1)\nclass C:\n    def __repr__(self):\n        return repr(self)\nrepr(C())",
        None,
    ),
    "a segmentation fault": ("import ctypes\ndef f(x):\n    ctypes.string_at(0)", "died of SIGSEGV"),
}

SYSCALL = (
    "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\ndef must(result):\n    if result < 0:\n        raise OSError('refused')\n"
)

ATTACKS = {
    "fork bomb": "import os, time\ndef f(x):\n    for _ in range(30):\n        if not os.fork():\n            time.sleep(30)",
    "daemon": "import os, time\nif not os.fork():\n    os.setsid()\n    if not os.fork():\n        time.sleep(30)\n    os._exit(0)",
    "raw clone": SYSCALL + "must(libc.syscall({clone}, 17, 0, 0, 0, 0))",
    "raw clone3": SYSCALL + "must(libc.syscall(435, ctypes.create_string_buffer(88), 88))",
    "subprocess": "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'touch {outside}/made'])",
    "os.system": "import os\nif os.system('touch {outside}/made'):\n    raise OSError",
    "exec": "import os\nos.execv('/bin/sh', ['sh', '-c', 'touch {outside}/made'])",
    "write": "open('{outside}/made', 'w').write('x')",
    "append": "open('{outside}/precious', 'a').write('x')",
    "write in its own folder": "open('made', 'w')",
    "write in the package": "open('{package}/{made}', 'w')",
    "write in the home folder": "import os\nopen(os.path.expanduser('~/{made}'), 'w')",
    "write a huge file": "with open('{outside}/made', 'wb') as file:\n    for _ in range(64):\n        file.write(bytes(2**20))",
    "write in shared memory": "open('/dev/shm/{made}', 'w')",
    "memory file": "import os\nos.memfd_create('made')",
    "delete": "import os\nos.remove('{outside}/precious')",
    "delete a tree": "import shutil\nshutil.rmtree('{outside}/folder')",
    "rename": "import os\nos.rename('{outside}/precious', '{outside}/made')",
    "make a folder": "import os\nos.mkdir('{outside}/made')",
    "symlink escape": "import os\nos.symlink('{outside}', 'link')\nopen('link/made', 'w')",
    "hard link": "import os\nos.link('{outside}/precious', '{outside}/made')",
    "make a fifo": "import os\nos.mkfifo('{outside}/made')",
    "truncate": "import os\nos.truncate('{outside}/precious', 0)",
    "chmod": "import os\nos.chmod('{outside}/precious', 0o777)",
    "chown": "import os\nos.chown('{outside}/precious', os.getuid(), os.getgid())",
    "utime": "import os\nos.utime('{outside}/precious', (0, 0))",
    "xattr": "import os\nos.setxattr('{outside}/precious', 'user.made', b'x')",
    "openat2": SYSCALL + "how = (ctypes.c_uint64 * 3)(0o101, 0o644, 0)\nmust(libc.syscall(437, -100, b'{outside}/made', how, 24))",
    "TCP": "import socket\nsocket.create_connection(('127.0.0.1', {tcp})).sendall(b'x')",
    "UDP": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {udp}))",
    "Unix socket": "import socket\nsocket.socket(socket.AF_UNIX).connect('{outside}/socket')",
    "listening": "import socket\nsocket.create_server(('127.0.0.1', 0))",
    "io_uring": SYSCALL + "must(libc.syscall(425, 8, ctypes.create_string_buffer(120)))",
    "signal to the parent": "import os, signal\nos.kill(os.getppid(), signal.SIGUSR1)",
    "signal to all": "import os, signal\nos.kill(-1, signal.SIGCONT)",
    "signal to the parent's group": "import os, signal\nos.killpg({group}, signal.SIGCONT)",
    "kill a bystander": "import os, signal\nos.kill({bystander}, signal.SIGKILL)",
    "pidfd": "import os, signal\nsignal.pidfd_send_signal(os.pidfd_open({bystander}), signal.SIGKILL)",
    "signal by file owner": "import fcntl, os, signal\nfcntl.fcntl(3, fcntl.F_SETOWN, {bystander})\nfcntl.fcntl(3, 10, signal.SIGKILL)\n"
    "fcntl.fcntl(3, fcntl.F_SETFL, os.O_ASYNC)\nos.close(3)",
    "ptrace": SYSCALL + "must(libc.ptrace(16, {bystander}, 0, 0))",
    "foreign memory": SYSCALL + "piece = (ctypes.c_uint64 * 2)(id(libc), 8)\n"
    "must(libc.process_vm_readv(os.getpid(), piece, 1, piece, 1, 0))",
    "limits raised": "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (9**9, 9**9))",
    "limits of others": "import resource\nresource.prlimit({bystander}, resource.RLIMIT_CPU, (1, 1))",
    "priority of others": "import os\nos.setpriority(os.PRIO_PROCESS, {bystander}, 19)",
    "namespaces": SYSCALL + "must(libc.unshare(0x10000000))",
    "mount": SYSCALL + "must(libc.mount(b'none', b'{outside}/folder', b'tmpfs', 0, 0))",
    "user identity": "import os\nos.setuid(1)",
    "shared memory": SYSCALL + "must(libc.shmget(0, 4096, 0o1600))",
}
"""{name: code}: raises OSError outside the function. Texts in braces are filled in."""

READING = {
    "a file of the user": "{outside}/secret",
    "a folder of the user": "{outside}",
    "the parent's environment": "/proc/{parent}/environ",
    "the parent's memory": "/proc/{parent}/mem",
    "accounts": "/etc/passwd",
}


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
        assert processes(temporary) == []
        assert os.listdir(temporary) == []


def snapshot(folder: Path) -> dict:
    """{path: what a program could have changed of it}."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        about = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        found[path] = (about.st_mode, about.st_uid, about.st_nlink, about.st_mtime_ns, content, os.listxattr(path))
    return found


def processes(temporary: Path) -> list[str]:
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


def only_seccomp(monkeypatch) -> None:
    monkeypatch.setattr(sandbox, "protection", lambda: {"namespaces": False, "landlock": False, "seccomp": True})


@pytest.fixture(params=["all layers", "seccomp alone"])
def layers(request, monkeypatch):
    """Each attack is refused twice: by all that the system has, and where it has nothing but seccomp."""
    if request.param == "seccomp alone":
        only_seccomp(monkeypatch)


def attack(code: str, world: dict, limits: Limits = sandbox.LIMITS) -> str:
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
    bomb = "import threading, time\ndef f(x):\n    for _ in range(300):\n        threading.Thread(target=time.sleep, args=(30,)).start()"
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
@pytest.mark.skipif(not protection()["landlock"], reason="without Landlock programs can read the user's files")
@pytest.mark.parametrize("name", READING)
def test_files_of_the_user_are_not_read(world, name):
    path = READING[name]
    reading = f"import os\nopen('{path}', 'rb').read(9)" if name != "a folder of the user" else f"import os\nos.listdir('{path}')"
    assert attack(reading, world).startswith("PermissionError")


@needs_seccomp
def test_the_environment_and_open_files_are_not_inherited(world):
    with open("secret") as file:
        os.set_inheritable(file.fileno(), True)
        reason = attack("import os\nraise ValueError(dict(os.environ))", world)
        assert reason.startswith("ValueError: {'PYTHONHASHSEED'") and "SECRET" not in reason
        readers = "import os\nfor n in range(64):\n    try:\n        os.fstat(n)\n    except OSError:\n        raise ValueError(n)"
        assert attack(readers, world) == "ValueError: 5"  # 0 to 2: /dev/null; 3 and 4: the pipes
    assert attack("import os\nraise ValueError(os.listdir(), os.getcwd())", world).startswith("ValueError: (['sandbox.pyc']")


@needs_seccomp
@pytest.mark.skipif(not protection()["namespaces"], reason="no namespaces here")
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
def test_privileges_and_limits_are_given_up(monkeypatch):
    only_seccomp(monkeypatch)
    expected = {
        "CapPrm": "0" * 16, "CapEff": "0" * 16, "CapInh": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2", "Max cpu time": "17 17 seconds",
        "Max file size": "0 0 bytes", "Max core file size": "0 0 bytes", "Max processes": "0 0 processes",
        "Max open files": "64 64 files", "Max address space": "1073741824 1073741824 bytes",
    }  # fmt: skip
    for line, value in expected.items():
        assert run(Program(ACCOUNT, f"assert f({line!r}).strip() == {value!r}", "f")) == Verdict(True, "passed"), line


@needs_seccomp
def test_the_judges_memory_is_closed_even_without_landlock(world, monkeypatch):
    only_seccomp(monkeypatch)
    code = (
        "import glob, os\ndef f(x):\n    for path in glob.glob('/proc/[0-9]*/cmdline'):\n"
        "        words = open(path).read().split('\\0')\n        if 'judge' in words and words[5].startswith('{temporary}'):\n"
        "            open(os.path.dirname(path) + '/mem', 'rb')"
    )
    code = code.replace("{temporary}", tempfile.gettempdir())
    assert attack(code, world).startswith("PermissionError: [Errno 13] Permission denied: '/proc/")


@needs_seccomp
def test_children_do_not_outlive_a_killed_caller(world, tmp_path):
    code = "import sys\nfrom adept.sandbox import Program, run\nrun(Program('import time\\ntime.sleep(30)', 'f()', 'f'))"
    temporary = tmp_path / "other"
    temporary.mkdir()
    caller = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "TMPDIR": str(temporary)})
    wait_until(lambda: len(processes(temporary)) == 2)
    caller.kill()
    caller.wait()
    wait_until(lambda: not processes(temporary))


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---------------------------------------------------------------------------------------------------------------------------------
# Systems that lack something.


@needs_seccomp
def test_protection_is_named():
    there = [name for name, found in protection().items() if found]
    assert require_protection().startswith(f"generated programs run under {', '.join(there)}")


@needs_seccomp
def test_missing_layers_are_named(monkeypatch):
    only_seccomp(monkeypatch)
    line = require_protection()
    assert line.startswith("generated programs run under seccomp;")
    assert "no landlock" in line and "no namespaces" in line and "\n" not in line


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems_are_refused(monkeypatch, system):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(sandbox, "protection", protection.__wrapped__)
    assert not any(sandbox.protection().values())
    with pytest.raises(UserError, match=f"Linux only.*this is {system}") as caught:
        require_protection()
    assert "\n" not in str(caught.value)


def test_linux_without_seccomp_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sandbox, "protection", lambda: {"namespaces": True, "landlock": True, "seccomp": False})
    monkeypatch.setattr(sandbox, "start", lambda *_, **__: pytest.fail("a program was started"))
    for refused in (require_protection, lambda: run(Program("", "", "f")), lambda: run_all([Program("", "", "f")])):
        with pytest.raises(UserError, match="seccomp"):
            refused()


@needs_seccomp
def test_a_layer_that_fails_stops_the_program(monkeypatch):
    broken = Path(sandbox.__file__).read_text(encoding="utf-8").replace('call("prctl", 22, 2,', 'call("prctl", 22, 99,')
    header = sandbox.bytecode()[:16]
    monkeypatch.setattr(sandbox, "bytecode", lambda: header + marshal.dumps(compile(broken, "broken", "exec")))
    with pytest.raises(UserError, match="cannot be run safely here"):
        require_protection()
    assert not run(Program("def f():\n    return 1", "assert f() == 1", "f")).passed
