"""Runs generated programs against their tests, so that a program can neither do harm nor forge its verdict (Linux).

run(Program(code, tests, entry_point)) -> Verdict(passed, reason); run_all() does many at once. The pass criterion and the 15 s are
mxeval's (Athiwaratkun et al., ICLR 2023, "Multi-lingual Evaluation of Code Generation Models"): no assertion fails, nothing is raised.

The verdict. Each program costs two processes, started afresh, and a third, the caller's, that only starts and kills them:

    caller --- job ---> judge: runs the tests --- names, arguments ---> candidate: runs the program
           <- verdict -                       <- results, as data -----

The tests, so the expected values too, never enter the candidate's process. There the tests' function is a Remote: calling it sends the
arguments, and what comes back is rebuilt from JSON as None, bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set,
frozenset, range, Fraction or Decimal and compared in the judge. An object of the program's own class stays in its process: the judge
can pass it back as an argument (MBPP/367, 601 and 927 do), to compare it is an error. Whatever a program does to its own process
(patch builtins, walk frames, write to every file descriptor, exit), all it can send is data, and data passes only if it is right.

The harm. Both processes lock themselves in before any of the code runs:

* seccomp, an allow list of system calls (required): no sockets, no new process or thread, no exec, no signals, no ptrace, and no
  change to the file system, by any user, root included;
* Landlock (Linux 5.13): no file can be read but Python's own and the system's libraries; once more no writing and no TCP;
* namespaces (where users may make them): no network device, once more;
* resource limits (address space, CPU, file size 0, 64 open files, no core dump), no capabilities, an empty environment, an empty
  temporary folder, /dev/null as stdin, stdout and stderr, and SIGKILL for the process group after `Limits.seconds` of wall clock.

What does not hold. Without Landlock a program can read what the user can read (it cannot send it anywhere, but this includes the
expected values, by way of the caller's memory in /proc); with it, it can still ask whether a path exists. Nothing here stops an
attack on the kernel or on the CPU's caches. And so that all this holds, programs that need a thread, a file of their own, input or
an installed package fail; a change that a function makes to its arguments in place is not seen by the tests. No MBPP task needs these.
"""

from __future__ import annotations

import builtins
import ctypes
import json
import os
import struct
import sys
import types

TYPE_CHECKING = False  # not typing's: its import is a tenth of a child's time
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO, NoReturn

# ---------------------------------------------------------------------------------------------------------------------------------
# In both children. This file is also their script, and they start twice as fast because the caller's imports come further down.

SYSTEM_CALLS = {
    # name: its number on x86_64, on aarch64 (None: it has none). Linux: arch/x86/entry/syscalls/syscall_64.tbl, asm-generic/unistd.h
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "lseek": (8, 62), "close": (3, 57),
    "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "stat": (4, None), "lstat": (6, None), "fstat": (5, 80),
    "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "readlink": (89, None), "readlinkat": (267, 78), "getcwd": (79, 17), "chdir": (80, 49), "getdents64": (217, 61),
    "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216), "madvise": (28, 233), "brk": (12, 214),
    "futex": (202, 98), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getrusage": (98, 165),
    "getrandom": (318, 278), "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174),
    "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "uname": (63, 160), "sysinfo": (99, 179),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
"""Allowed whatever the arguments. What is not named is refused, so that a system call of a future kernel is refused too."""

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of SYSTEM_CALLS, and AUDIT_ARCH_* of linux/audit.h."""


def call(name: str, *arguments: Any) -> int:
    """The C library's function. Raises OSError where it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = getattr(libc, name)(*[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}{arguments[:1]}: {os.strerror(ctypes.get_errno())}")
    return result


def use_namespaces() -> None:
    """Own user, network and IPC namespaces: a network without devices."""
    call("unshare", 0x10000000 | 0x40000000 | 0x08000000)  # CLONE_NEWUSER, without which only root may have the others; NEWNET, NEWIPC


def use_landlock() -> None:
    """Reading in the interpreter's and the system's library folders and in the working folder only (linux/landlock.h)."""
    create, add, restrict = 444, 445, 446
    version = call("syscall", create, None, 0, 1)
    file_rights = 13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16
    network = 3 if version >= 4 else 0  # TCP: bind, connect
    scope = 3 if version >= 6 else 0  # abstract Unix sockets, signals
    rules = call("syscall", create, struct.pack("=QQQ", (1 << file_rights) - 1, network, scope), 24, 0)
    libraries = [os.path.dirname(entry) for entry in sys.path]
    devices = [os.devnull, "/dev/urandom", "/etc/localtime", "/etc/ld.so.cache"]
    for path in [*libraries, *devices, os.getcwd(), "/usr", "/lib", "/lib64"]:
        if os.path.exists(path):
            read_file, read_folder = 1 << 2, 1 << 3
            opened = os.open(path, os.O_PATH)
            rights = read_file | read_folder if os.path.isdir(path) else read_file
            call("syscall", add, rules, 1, struct.pack("=Qi", rights, opened), 0)
            os.close(opened)
    call("syscall", restrict, rules, 0)
    os.close(rules)


def use_seccomp() -> None:
    """SYSTEM_CALLS, opening files to read them, and what Python asks of a file descriptor; ENOSYS for all else, as on an old kernel."""
    machine = os.uname().machine
    if machine not in MACHINES:
        raise OSError(f"no list of system calls for {machine}")
    column, architecture = MACHINES[machine]
    load, equal, any_bit, answer = 0x20, 0x15, 0x45, 0x06  # linux/bpf_common.h
    allow, refuse, kill = 0x7FFF0000, 0x00050000 | 38, 0x80000000  # linux/seccomp.h; 38: ENOSYS
    words = []

    def add(code: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        words.append(struct.pack("=HBBI", code, if_true, if_false, value))

    add(load, 4)  # struct seccomp_data: number, architecture, instruction pointer, then 6 arguments of 8 bytes from byte 16
    add(equal, architecture, if_true=1)
    add(answer, kill)  # 32-bit system calls have other numbers
    add(load, 0)
    for numbers in SYSTEM_CALLS.values():
        if numbers[column] is not None:
            add(equal, numbers[column], if_false=1)
            add(answer, allow)
    for numbers, argument in (((2, None), 1), ((257, 56), 2)):  # open, openat: which argument has the flags
        if numbers[column] is not None:
            add(equal, numbers[column], if_false=4)
            add(load, 16 + 8 * argument)
            add(any_bit, WRITING, if_true=1)
            add(answer, allow)
            add(answer, refuse)
    # fcntl F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC (F_SETOWN and O_ASYNC would send signals); ioctl TCGETS, FIOCLEX, FIONCLEX
    for numbers, commands in (((72, 25), (0, 1, 2, 3, 1030)), ((16, 29), (0x5401, 0x5451, 0x5450))):
        add(equal, numbers[column], if_false=2 + 2 * len(commands))
        add(load, 16 + 8)
        for command in commands:
            add(equal, command, if_false=1)
            add(answer, allow)
        add(answer, refuse)
    add(answer, refuse)
    program = ctypes.create_string_buffer(b"".join(words))
    call("prctl", 22, 2, struct.pack("@HP", len(words), ctypes.addressof(program)), 0, 0)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def drop_privileges() -> None:
    """No capabilities, not to outlive the caller, and closed to other processes of the user."""
    call("capset", struct.pack("=Ii", 0x20080522, 0), bytes(24))  # version 3, this process; none effective, permitted or inheritable
    call("prctl", 1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
    call("prctl", 4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: the candidate may not read the judge's memory in /proc
    call("prctl", 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, which Landlock and seccomp ask for


LAYERS: dict[str, Callable[[], None]] = {"namespaces": use_namespaces, "landlock": use_landlock, "seccomp": use_seccomp}
"""In this order: each forbids what sets up those before it. Each raises OSError where the system lacks it."""


def lock_in(layers: list[str], caller: int, seconds: float, memory_bytes: int) -> None:
    """The whole process, for good. Raises OSError if one of `layers` can't be had."""
    import resource  # not on Windows, where the caller must still be able to import this file

    limits = {
        "AS": memory_bytes,
        "CPU": int(seconds) + 2,  # the caller's clock comes first; this one counts if the caller was killed
        "FSIZE": 0,
        "NPROC": 0,
        "NOFILE": 64,
        "CORE": 0,
    }
    for name, value in limits.items():
        which = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))
    if "namespaces" in layers:
        use_namespaces()
    drop_privileges()
    if os.getppid() != caller:  # it died before PR_SET_PDEATHSIG
        os._exit(1)
    if "landlock" in layers:
        use_landlock()
    if "seccomp" in layers:
        use_seccomp()


def encode(value: Any, keep: Callable[[Any], dict]) -> Any:
    """The JSON form of plain data; a subclass's object goes as its base's value. `keep` makes the form of anything else.

    JSON's null, booleans, strings, floats, arrays and small integers stand for themselves; {tag: content} for the rest (see DECODERS).
    """
    if value is None or isinstance(value, bool):
        return value
    match value:
        case str():
            return str.__str__(value)
        case int():
            return int(value) if -(2**53) < value < 2**53 else {"int": hex(value)}  # long decimals take quadratic time
        case float():
            return float.__float__(value)
        case list():
            return [encode(item, keep) for item in value]
        case dict():
            return {"dict": [[encode(key, keep), encode(item, keep)] for key, item in value.items()]}
        case complex():
            return {"complex": [value.real, value.imag]}
        case range():
            return {"range": [encode(end, keep) for end in (value.start, value.stop, value.step)]}
        case type() if value in CLASSES.values():
            return {"class": value.__name__}
    for kind in (tuple, set, frozenset):
        if isinstance(value, kind):
            return {kind.__name__: [encode(item, keep) for item in value]}
    for kind in (bytes, bytearray):
        if isinstance(value, kind):
            return {kind.__name__: value.hex()}
    for module, name in (("fractions", "Fraction"), ("decimal", "Decimal")):
        if isinstance(value, getattr(sys.modules.get(module), name, ())):
            return {name: str(value)}
    return keep(value)


def number(module: str, name: str, text: str) -> Any:
    """Imported here: most programs need neither module."""
    return getattr(__import__(module), name)(str(text))


CLASSES = {kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)}
"""As arguments (MBPP/533)."""

DECODERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda digits: int(digits, 16),
    "complex": lambda parts: complex(*parts),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "range": lambda ends: range(*ends),
    "class": CLASSES.__getitem__,
    "Fraction": lambda text: number("fractions", "Fraction", text),
    "Decimal": lambda text: number("decimal", "Decimal", text),
}


def decode(line: bytes, more: dict[str, Callable[[Any], Any]]) -> Any:
    """Of `encode`'s form; `more` decodes the tags that only one side knows. Raises whatever the constructors raise."""

    def build(tagged: dict) -> Any:
        ((tag, content),) = tagged.items()
        return (more.get(tag) or DECODERS[tag])(content)

    return json.loads(line, object_hook=build)


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """What were stdin and stdout, moved away; /dev/null is in their place, so that printing disturbs nothing and fills nothing."""
    pipes = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    return pipes


def send(pipe: BinaryIO, message: Any) -> None:
    line = json.dumps(message).encode() + b"\n"
    pipe.write(line)
    pipe.flush()


# ---------------------------------------------------------------------------------------------------------------------------------
# The candidate: everything after lock_in is in the program's hands.


def be_candidate() -> NoReturn:
    """Answers ["value", result] or ["error", class, nearest builtin class, message] to the job and to each [reference, args, kwargs]."""
    requests, replies = take_pipes()
    job = json.loads(requests.readline())
    kept: list[Any] = []
    program = types.ModuleType("program")
    sys.modules["program"] = program  # dataclasses and pickle look a class up by its module

    def keep(value: Any) -> dict:
        kept.append(value)
        return {"kept": [len(kept) - 1, type(value).__name__]}

    def named(name: str) -> Any:
        if name not in vars(program):
            raise NameError(f"name {name!r} is not defined")
        return vars(program)[name]

    def load() -> None:
        lock_in(**job["lock"])
        exec(compile(job["code"], "program", "exec", dont_inherit=True), vars(program))

    def serve(line: bytes) -> Any:
        function, arguments, keywords = decode(line, {"kept": lambda content: kept[content[0]], "name": named})
        return function(*arguments, **keywords)

    def answer(work: Callable[..., Any], *arguments: Any) -> None:
        try:
            send(replies, ["value", encode(work(*arguments), keep)])
        except BaseException as error:
            error.__traceback__ = None  # lets go of what filled the memory
            send(replies, ["error", *describe(error)])

    answer(load)
    for line in requests:
        answer(serve, line)
    os._exit(0)


def describe(error: BaseException) -> list[str]:
    """[class, nearest builtin class, message]."""
    base = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
    try:
        message = str(error)[:500]
    except BaseException:
        message = ""
    return [type(error).__name__, base, message]


# ---------------------------------------------------------------------------------------------------------------------------------
# The judge: trusted tests, untrusted answers.

EXITED = "exited early"


class Stopped(BaseException):
    """The program can't be asked any further. No Exception: a test that catches those must not go on."""


class Remote:
    """Something in the candidate's process: to be called, or passed back as an argument, and never compared."""

    def __init__(self, candidate: Candidate, reference: dict, kind: str):
        self.candidate, self.reference, self.kind = candidate, reference, kind

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.candidate.ask(encode([self, arguments, keywords], refer))

    def __eq__(self, *_: object) -> bool:
        raise TypeError(f"{self.kind} object is no plain data")

    __bool__ = __eq__


def refer(value: Any) -> dict:
    """The `keep` of the judge, which keeps nothing."""
    if isinstance(value, Remote):
        return value.reference
    raise TypeError(f"a test passes a {type(value).__name__}, which is no plain data")


class Candidate:
    """The judge's end of the pipes."""

    def __init__(self, requests: BinaryIO, replies: BinaryIO, result_bytes: int):
        self.requests, self.replies, self.result_bytes = requests, replies, result_bytes

    def ask(self, message: Any) -> Any:
        """The result, as data and Remotes. Raises what the program raised as its nearest builtin exception, or Stopped."""
        keep = {"kept": lambda content: Remote(self, {"kept": content}, str(content[1])[:50])}
        try:
            send(self.requests, message)
            line = self.replies.readline(self.result_bytes)
        except BrokenPipeError:
            line = b""
        if not line.endswith(b"\n"):
            raise Stopped("result too large" if len(line) == self.result_bytes else EXITED)
        try:
            status, *content = decode(line, keep)
            if status == "value":
                (result,) = content
                return result
            error = self.error(*content)
        except MemoryError:
            raise
        except Exception as unreadable:
            raise Stopped(f"unreadable result: {type(unreadable).__name__}") from None
        raise error

    def error(self, name: str, base: str, message: str) -> BaseException:
        kind = getattr(builtins, base)
        if not issubclass(kind, Exception):
            return Stopped(f"{EXITED}: {name}")
        try:
            error = kind(message)
        except TypeError:  # UnicodeDecodeError and others want more arguments
            error = Exception(message)
        if issubclass(kind, SyntaxError):
            error.in_words = f"syntax error: {message}"
        elif kind is MemoryError:
            error.in_words = "memory limit"
        else:
            error.in_words = f"{name}: {message}" if message else str(name)
        return error


def be_judge(request_end: int, reply_end: int) -> NoReturn:
    """Writes {"passed", "reason"} to the caller."""
    caller, verdict = take_pipes()
    job = json.loads(caller.readline())
    lock_in(**job["lock"])
    candidate = Candidate(os.fdopen(request_end, "wb"), os.fdopen(reply_end, "rb"), job["result_bytes"])
    try:
        candidate.ask({"code": job["code"], "lock": job["lock"]})
        run_tests(job["tests"], job["entry_point"], lambda name: Remote(candidate, {"name": name}, name))
    except (Exception, Stopped) as error:
        # Only here can a program's words enter the verdict, and here it has failed.
        send(verdict, {"passed": False, "reason": " ".join(why(error)[:300].split())})
    else:
        send(verdict, {"passed": True, "reason": "passed"})
    os._exit(0)


def why(error: BaseException) -> str:
    match error:
        case Exception(in_words=words):  # the program raised it
            return words
        case AssertionError():
            return "assertion failed"
        case MemoryError():
            return "memory limit"
        case Stopped():
            return str(error)
    return f"{type(error).__name__}: {error}"


def run_tests(tests: str, entry_point: str, remote: Callable[[str], Remote]) -> None:
    """MBXP's form (check(candidate) is defined and then called) or the original one (assertions that name the function)."""
    used, defined = names_of(tests)
    namespace: dict[str, Any] = {"__name__": "tests", entry_point: remote(entry_point)}
    for name in used - defined - set(dir(builtins)) - {entry_point}:  # the program has these too (MBPP/596: sys; 601: Pair)
        namespace[name] = __import__(name) if name in sys.stdlib_module_names else remote(name)
    exec(compile(tests, "tests", "exec", dont_inherit=True), namespace)
    if "check" in defined:
        namespace["check"](remote(entry_point))


def names_of(source: str) -> tuple[set[str], set[str]]:
    """(global names that are used, those that are defined)."""
    import symtable  # only the judge needs it

    module = symtable.symtable(source, "tests", "exec")
    scopes = [module]
    for scope in scopes:
        scopes += scope.get_children()
    used = {s.get_name() for scope in scopes for s in scope.get_symbols() if s.is_referenced() and (scope is module or s.is_global())}
    return used, {s.get_name() for s in module.get_symbols() if s.is_assigned() or s.is_imported()}


def try_layers() -> None:
    """Writes {layer: whether this system has it}."""
    _, answer = take_pipes()
    call("prctl", 38, 1, 0, 0, 0)
    found = {}
    for name, use in LAYERS.items():
        try:
            use()
            found[name] = True
        except OSError:
            found[name] = False
    send(answer, found)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["candidate"]:
            be_candidate()
        case ["judge", *ends]:
            be_judge(*map(int, ends))
        case ["layers"]:
            try_layers()
    sys.exit()

# ---------------------------------------------------------------------------------------------------------------------------------
# The caller.

import contextlib  # noqa: E402
import functools  # noqa: E402
import importlib.util  # noqa: E402
import marshal  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Iterator, Sequence  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from dataclasses import asdict, dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

from adept.config import UserError  # noqa: E402


@dataclass(frozen=True)
class Program:
    """A generated program and the tests of its task."""

    code: str
    """Untrusted: prompt and completion, which define the function."""
    tests: str
    """Trusted, from the data set: defines check(candidate) (MBXP), or is lines of "assert f(...) == ..." (original MBPP)."""
    entry_point: str
    """The name of the function under test."""


@dataclass(frozen=True)
class Verdict:
    passed: bool
    reason: str
    """"passed", or in a few words why not: "assertion failed", "syntax error: ...", "timed out after 15 s"."""


@dataclass(frozen=True)
class Limits:
    """What one program may use. There is no limit for output, files and processes: output goes nowhere, the others are forbidden."""

    seconds: float = 15.0
    """Wall clock, both processes' start included (mxeval's limit)."""
    memory_bytes: int = 2**30
    """Address space of the program's process, and of the judge's."""
    result_bytes: int = 2**24
    """One result as JSON."""


LIMITS = Limits()

PROBE = Program(
    code="""
import os, socket
def holes():
    found = []
    for attempt in (socket.socket, os.fork, lambda: os.kill(os.getppid(), 0), lambda: open("file", "w"), lambda: os.mkdir("folder")):
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
"""Passes where the sandbox works and holds."""


SCRIPT = "sandbox.pyc"


@functools.cache
def bytecode() -> bytes:
    """This file compiled, as a .pyc: scripts are not cached, and compiling it would be a quarter of a child's time."""
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(compile(Path(__file__).read_bytes(), "sandbox.py", "exec"))


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder that holds the children's script."""
    with tempfile.TemporaryDirectory(prefix="adept-sandbox-") as folder:
        (Path(folder) / SCRIPT).write_bytes(bytecode())
        yield Path(folder)


def start(role: str, folder: Path, *ends: int, **pipes: Any) -> subprocess.Popen:
    """This file as a script, in a process group of its own, with no environment but what makes a run repeatable."""
    # -s -S -P: no user's or installed packages, nothing from the working folder; -B: no bytecode. Not -I, which ignores the seed.
    command = [sys.executable, "-s", "-S", "-P", "-B", str(folder / SCRIPT), role, *map(str, ends)]
    environment = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}
    if "LD_LIBRARY_PATH" in os.environ:  # a Python that lies elsewhere may not start without
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return subprocess.Popen(command, cwd=folder, env=environment, pass_fds=ends, start_new_session=True, stderr=subprocess.DEVNULL, **pipes)


def stop(process: subprocess.Popen) -> None:
    if process.returncode is None:  # else the number may be another process's by now
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def run(program: Program, limits: Limits = LIMITS) -> Verdict:
    """Whether the program passes its tests. Raises UserError where seccomp is missing; then nothing has been run."""
    layers = [name for name, there in protection().items() if there]
    if "seccomp" not in layers:
        raise UserError(missing_protection())
    lock = {"layers": layers, "caller": os.getpid(), "seconds": limits.seconds, "memory_bytes": limits.memory_bytes}
    job = json.dumps({**asdict(program), "lock": lock, "result_bytes": limits.result_bytes}).encode() + b"\n"
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(workplace())
        with contextlib.ExitStack() as ends:
            request_out, request_in = os.pipe()
            reply_out, reply_in = os.pipe()
            for end in (request_out, request_in, reply_out, reply_in):
                ends.callback(os.close, end)
            candidate = start("candidate", folder, stdin=request_out, stdout=reply_in)
            stack.callback(stop, candidate)
            judge = start("judge", folder, request_in, reply_out, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.callback(stop, judge)
        try:
            output, _ = judge.communicate(job, timeout=limits.seconds)
        except subprocess.TimeoutExpired:
            return Verdict(False, f"timed out after {limits.seconds:g} s")
        if not output:
            return Verdict(False, f"the judge {how_ended(judge)}")
        verdict = Verdict(**json.loads(output))
        if verdict.reason == EXITED:
            verdict = Verdict(False, how_ended(candidate))
        return verdict


def how_ended(process: subprocess.Popen) -> str:
    try:
        status = process.wait(timeout=1)
    except subprocess.TimeoutExpired:  # it closed its pipes and lives on
        return EXITED
    return f"died of {signal.Signals(-status).name}" if status < 0 else f"{EXITED} with status {status}"


def run_all(programs: Sequence[Program], limits: Limits = LIMITS, workers: int | None = None) -> list[Verdict]:
    """In the order of the programs; `workers` at a time, by default one a CPU."""
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        return list(pool.map(lambda program: run(program, limits), programs))


@functools.cache
def protection() -> dict[str, bool]:
    """{layer: whether this system has it}, for the layers "namespaces", "landlock" and "seccomp", found by trying."""
    found = {}
    if sys.platform == "linux":
        with workplace() as folder:
            output, _ = start("layers", folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).communicate()
        found = json.loads(output or "{}")  # empty: killed by a filter that is not meant for this machine
    return {name: found.get(name, False) for name in LAYERS}


def missing_protection() -> str:
    if sys.platform != "linux":
        return f"generated programs are run on Linux only, under seccomp; this is {sys.platform}: run this task on Linux or in a container"
    return "generated programs are run under seccomp only, which this system does not allow (x86_64 and aarch64 kernels have it)"


def require_protection() -> str:
    """One line that says what protects. Raises UserError where programs can't be run, or not kept from the network and from writing."""
    verdict = run(PROBE)
    if not verdict.passed:
        raise UserError(f"generated programs cannot be run safely here: the sandbox's own check says {verdict.reason!r}")
    layers = protection()
    line = f"generated programs run under {', '.join(name for name in layers if layers[name])}"
    if not layers["landlock"]:
        line += "; no landlock, so they could read this user's files, but send them nowhere (seccomp)"
    if not layers["namespaces"]:
        line += "; no namespaces, the network is closed by seccomp"
    return line
