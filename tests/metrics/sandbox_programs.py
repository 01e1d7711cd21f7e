"""Programs for tests/metrics/test_sandbox.py: right ones, wrong ones and hostile ones, with their tests or verdicts."""

CHECK = "METADATA = {}\n\ndef check(candidate):\n"


def mbxp(*assertions: str) -> str:
    return CHECK + "".join(f"    assert {assertion}\n" for assertion in assertions)


def original(*assertions: str) -> str:
    return "\n".join(f"assert {assertion}" for assertion in assertions)


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
    "integers of thousands of digits": (
        "def f(x):\n    return [x**20000, -(x**60)]",
        original("f(3) == [3**20000, -(3**60)]"),
    ),
    "bytes and range": (
        "def f(x):\n    return [x, bytearray(x), range(3)]",
        mbxp("candidate(b'ab') == [b'ab', bytearray(b'ab'), range(3)]"),
    ),
    "nested, with every key": (
        "def f(x):\n    return {(1, 2): [{'a': x}], None: {x: True}, 0.5: 'é\\ud800'}",
        mbxp("candidate(7) == {(1, 2): [{'a': 7}], None: {7: True}, 0.5: 'é\\ud800'}"),
    ),
    "subclasses of plain types": (
        "from collections import *\nP = namedtuple('P', 'x y')\ndef f(x):\n"
        "    return [Counter(x), P(1, 2), defaultdict(list, a=[1])]",
        mbxp("candidate('aab') == [{'a': 2, 'b': 1}, (1, 2), {'a': [1]}]"),
    ),
    "exact numbers": (
        "from decimal import Decimal\nfrom fractions import Fraction\ndef f(x):\n"
        "    return Fraction(1, x), Decimal('0.5')",
        mbxp("candidate(4) == (0.25, 0.5)"),
    ),
    "keyword arguments": ("def f(x, *, y=0):\n    return x - y", mbxp("candidate(3, y=1) == 2", "candidate(x=3) == 3")),
    "classes as arguments": (
        "def f(x, kind):\n    return isinstance(x, kind)",
        original("f(3, int) == True", "f(3, str) == False"),
    ),
    "an expected exception": (
        "class Mine(ValueError):\n    pass\ndef f(x):\n    raise Mine(f'no {x}')",
        CHECK + "    try:\n        candidate(3)\n        assert False\n    except ValueError as error:\n"
        "        assert str(error) == 'no 3'",
    ),
    "an exception that wants more arguments": (
        "def f(x):\n    return x.decode()",
        CHECK + "    try:\n        candidate(b'\\xff')\n    except Exception as error:\n"
        "        assert 'utf-8' in str(error)\n",
    ),
    "a class of the program in the tests": (
        "class Pair:\n    def __init__(self, a, b):\n        self.a, self.b = a, b\n"
        "def f(pairs):\n    return sum(p.a * p.b for p in pairs)",
        original("f([Pair(1, 2), Pair(3, b=4)]) == 14"),
    ),
    "objects of the program in the tests": (
        "class Node:\n    left = None\ndef f(node):\n    return 0 if node is None else 1 + f(node.left)\n"
        "root = Node()\nroot.left = Node()",
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
    "sys in the tests": (
        "import sys\ndef f(x):\n    return sys.getsizeof(x)",
        original("f((1, 2)) == sys.getsizeof((1, 2))"),
    ),
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
        "    return [math.gcd(12, 18), re.findall(r'\\d+', 'a1b22'), list(itertools.accumulate([1, 2])), heap[0],\n"
        "            sys.maxsize, collections.Counter('aa')['a'],\n"
        "            functools.reduce(operator.add, [1, 2]),\n"
        "            str(datetime.date(2020, 2, 28) + datetime.timedelta(2)), bisect.bisect([1, 3], 2),\n"
        "            cmath.sqrt(-1), statistics.mean([1, 3]), string.digits]",
        mbxp("candidate(1) == [6, ['1', '22'], [1, 3], 1, 2**63 - 1, 2, 3, '2020-03-01', 1, 1j, 2, '0123456789']"),
    ),
}

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

# Hostile programs. Each is bounded, so that a broken sandbox fails the test and does not take the machine with it. The
# test is f(2) == 4 and f(3) == 9. A program that only fails to do harm would be right, so each raises or returns a
# wrong value.

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
    "a reply that nests": (
        "import os\nos.write(4, b'[\"value\", ' + b'[' * 60000 + b'\\n')",
        "unreadable result: RecursionError",
    ),
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
        "class E:\n    __class__ = int\n    def __int__(self):\n        return 4\n    def __eq__(self, other):\n"
        "        return True\n"
        "    def __lt__(self, other):\n        return True\n    __gt__ = __lt__\ndef f(x):\n    return E()",
        "assertion failed",
    ),
    "always equal, nested": (
        "class E:\n    __hash__ = None\n    def __eq__(self, other):\n        return True\ndef f(x):\n"
        "    return [{'a': (E(),)}]",
        "assertion failed",
    ),
    "builtins patched": (
        "import builtins\nbuiltins.AssertionError = builtins.Exception = BaseException\n"
        "builtins.isinstance = lambda *a: True\n"
        "builtins.len = lambda x: 4\nbuiltins.type = lambda x: int\ndef f(x):\n    return [0]",
        None,
    ),
    "check redefined": (
        "def check(candidate):\n    pass\ncandidate = check\ndef f(x):\n    return 5",
        "assertion failed",
    ),
    "codecs patched": (
        "import json, pickle, marshal\nanswer = '[\"value\", true]'\n"
        "json.dumps = json.loads = pickle.dumps = pickle.loads = marshal.loads = lambda *a, **k: answer\ndef f(x):\n"
        "    return 5",
        None,
    ),
    "pickles that run code": (
        "import os\nclass R:\n    def __reduce__(self):\n        return os.mkdir, ('{outside}/made',)\ndef f(x):\n"
        "    return R()",
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
    "every descriptor closed": (
        "import os\nos.closerange(0, 64)\ndef f(x):\n    return 4",
        "exited early with status 120",
    ),
}
"""{name: (code, the verdict's reason or None for any)}."""

HOGS = {
    "spinning": ("def f(x):\n    while True:\n        pass", "timed out after 2 s"),
    "sleeping": ("import time\ntime.sleep(1000)", "timed out after 2 s"),
    "sleeping without its pipes": ("import os, time\nos.closerange(0, 64)\ntime.sleep(1000)", "exited early"),
    "signals ignored": (
        "import signal, time\nfor s in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:\n"
        "    signal.signal(s, signal.SIG_IGN)\n"
        "while True:\n    time.sleep(1)",
        "timed out after 2 s",
    ),
    "endless output": ("while True:\n    print('x' * 65536)", "timed out after 2 s"),
    "endless errors": ("import os\nwhile True:\n    os.write(2, b'x' * 65536)", "timed out after 2 s"),
    "a huge power": ("def f(x):\n    return 7 ** 7 ** 11", "timed out after 2 s"),
    "a slow pattern": ("import re\ndef f(x):\n    re.match('(a*)*b', 'a' * 40)", "timed out after 2 s"),
    "memory in blocks": (
        "def f(x):\n    data = []\n    for _ in range(64):\n        data.append(b'x' * 2**26)",
        "memory limit",
    ),
    "memory in small objects": (
        "def f(x):\n    data = []\n    for i in range(10**8):\n        data.append([i] * 9999)",
        "memory limit",
    ),
    "a gigantic result": ("def f(x):\n    return 'x' * 2**25", "result too large"),
    "a gigantic number": ("def f(x):\n    return 1 << 2**28", "result too large"),
    "a result that contains itself": (
        "def f(x):\n    a = []\n    a.append(a)\n    return a",
        "RecursionError: maximum recursion depth exceeded",
    ),
    "recursion": ("def f(x):\n    return f(x + 1)", "RecursionError: maximum recursion depth exceeded"),
    "recursion without limit": ("import sys\nsys.setrecursionlimit(2**31 - 1)\ndef f(x):\n    return [f(x + 1)]", None),
    "recursion in C": (
        "import sys\nsys.setrecursionlimit(2**31 - 1)\nclass C:\n    def __repr__(self):\n"
        "        return repr(self)\nrepr(C())",
        None,
    ),
    "a segmentation fault": ("import ctypes\ndef f(x):\n    ctypes.string_at(0)", "died of SIGSEGV"),
}

SYSCALL = (
    "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\ndef must(result):\n    if result < 0:\n"
    "        raise OSError('refused')\n"
)

ATTACKS = {
    "fork bomb": "import os, time\ndef f(x):\n    for _ in range(30):\n        if not os.fork():\n"
    "            time.sleep(30)",
    "daemon": "import os, time\nif not os.fork():\n    os.setsid()\n    if not os.fork():\n        time.sleep(30)\n"
    "    os._exit(0)",
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
    "write a huge file": "with open('{outside}/made', 'wb') as file:\n    for _ in range(64):\n"
    "        file.write(bytes(2**20))",
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
    "openat2": SYSCALL
    + "how = (ctypes.c_uint64 * 3)(0o101, 0o644, 0)\nmust(libc.syscall(437, -100, b'{outside}/made', how, 24))",
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
    "signal by file owner": "import fcntl, os, signal\nfcntl.fcntl(3, fcntl.F_SETOWN, {bystander})\n"
    "fcntl.fcntl(3, 10, signal.SIGKILL)\n"
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
