"""How a child confines its process for good: resource limits, namespaces, Landlock and seccomp.

The package's docstring says what each of them prevents. Numbers of system calls, flags and structures are the Linux
kernel's; the header that defines them is named beside them.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

TYPE_CHECKING = False  # importing typing would take a tenth of a child's start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SYSTEM_CALLS = {
    # name: its number on x86_64, on aarch64 (None: it has none)
    # Linux: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "lseek": (8, 62),
    "close": (3, 57), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "stat": (4, None), "lstat": (6, None),
    "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None), "faccessat": (269, 48),
    "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78), "getcwd": (79, 17), "chdir": (80, 49),
    "getdents64": (217, 61), "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216),
    "madvise": (28, 233), "brk": (12, 214), "futex": (202, 98), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132), "restart_syscall": (219, 128),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getrusage": (98, 165),
    "getrandom": (318, 278), "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174),
    "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "uname": (63, 160), "sysinfo": (99, 179),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
"""Allowed with any arguments. What is not named is refused, and so are the system calls of future kernels."""

WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""{machine: (its column in SYSTEM_CALLS, AUDIT_ARCH_* of linux/audit.h)}."""


def call_libc(function: str, *arguments: Any) -> int:
    """Calls a function of the C library and returns its result. Raises OSError if the result is negative."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = getattr(libc, function)(*[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{function}{arguments[:1]}: {os.strerror(ctypes.get_errno())}")
    return result


def enter_namespaces() -> None:
    """Moves the process to user, network and IPC namespaces of its own: its network has no devices."""
    user, network, ipc = 0x10000000, 0x40000000, 0x08000000  # CLONE_NEW* of linux/sched.h
    call_libc("unshare", user | network | ipc)  # without a user namespace only root may have the others


def restrict_files() -> None:
    """Landlock: allows only reading, and only in the working folder, Python's folders and the system's libraries.

    Source: linux/landlock.h.
    """
    create, add, restrict = 444, 445, 446  # system calls
    version = call_libc("syscall", create, None, 0, 1)
    file_rights = 13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16
    network = 3 if version >= 4 else 0  # TCP: bind, connect
    scope = 3 if version >= 6 else 0  # abstract Unix sockets, signals
    rules = call_libc("syscall", create, struct.pack("=QQQ", (1 << file_rights) - 1, network, scope), 24, 0)
    libraries = [os.path.dirname(entry) for entry in sys.path]
    devices = [os.devnull, "/dev/urandom", "/etc/localtime", "/etc/ld.so.cache"]
    for path in [*libraries, *devices, os.getcwd(), "/usr", "/lib", "/lib64"]:
        if os.path.exists(path):
            read_file, read_folder = 1 << 2, 1 << 3
            opened = os.open(path, os.O_PATH)
            rights = read_file | read_folder if os.path.isdir(path) else read_file
            call_libc("syscall", add, rules, 1, struct.pack("=Qi", rights, opened), 0)
            os.close(opened)
    call_libc("syscall", restrict, rules, 0)
    os.close(rules)


def restrict_system_calls() -> None:
    """seccomp: allows SYSTEM_CALLS, opening files for reading, and what Python asks of a file descriptor.

    All other system calls fail with ENOSYS, as on a kernel that does not have them.
    """
    machine = os.uname().machine
    if machine not in MACHINES:
        raise OSError(f"no list of system calls for {machine}")
    column, architecture = MACHINES[machine]
    load, equal, any_bit, answer = 0x20, 0x15, 0x45, 0x06  # linux/bpf_common.h
    allow, refuse, kill = 0x7FFF0000, 0x00050000 | 38, 0x80000000  # linux/seccomp.h; 38: ENOSYS
    words = []

    def add(code: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        words.append(struct.pack("=HBBI", code, if_true, if_false, value))

    # struct seccomp_data: number (byte 0), architecture (4), instruction pointer (8), 6 arguments of 8 bytes (from 16)
    add(load, 4)
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
            add(any_bit, WRITE_FLAGS, if_true=1)
            add(answer, allow)
            add(answer, refuse)
    # fcntl: F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC (F_SETOWN and O_ASYNC would send signals)
    # ioctl: TCGETS, FIOCLEX, FIONCLEX
    for numbers, commands in (((72, 25), (0, 1, 2, 3, 1030)), ((16, 29), (0x5401, 0x5451, 0x5450))):
        add(equal, numbers[column], if_false=2 + 2 * len(commands))
        add(load, 16 + 8)
        for command in commands:
            add(equal, command, if_false=1)
            add(answer, allow)
        add(answer, refuse)
    add(answer, refuse)
    instructions = ctypes.create_string_buffer(b"".join(words))
    program = struct.pack("@HP", len(words), ctypes.addressof(instructions))  # sock_fprog of linux/filter.h
    call_libc("prctl", 22, 2, program, 0, 0)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def drop_privileges() -> None:
    """Gives up all capabilities, dies with the caller, and closes the process to the user's other processes."""
    header = struct.pack("=Ii", 0x20080522, 0)  # version 3, this process
    call_libc("capset", header, bytes(24))  # none effective, permitted or inheritable
    call_libc("prctl", 1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
    call_libc("prctl", 4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: the candidate may not read the judge's memory in /proc
    forbid_new_privileges()


def forbid_new_privileges() -> None:
    """Landlock and seccomp require this."""
    call_libc("prctl", 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS


LAYERS: dict[str, Callable[[], None]] = {
    "namespaces": enter_namespaces,
    "landlock": restrict_files,
    "seccomp": restrict_system_calls,
}
"""{layer: what applies it}, in the order of application: each layer forbids what sets up the earlier ones.

Each raises OSError if this system lacks the layer.
"""


def confine_process(layers: list[str], caller: int, seconds: float, memory_bytes: int) -> None:
    """Confines the whole process for good.

    Args:
        layers: names of LAYERS to apply.
        caller: process id of the caller, without which this process must not live.
        seconds: CPU time that the process may use, to which 2 s are added.
        memory_bytes: limit of the address space.

    Raises OSError if one of `layers` cannot be applied.
    """
    set_resource_limits(seconds, memory_bytes)
    if "namespaces" in layers:
        enter_namespaces()
    drop_privileges()
    if os.getppid() != caller:  # the caller died before PR_SET_PDEATHSIG was set
        os._exit(1)
    if "landlock" in layers:
        restrict_files()
    if "seccomp" in layers:
        restrict_system_calls()


def set_resource_limits(seconds: float, memory_bytes: int) -> None:
    """Lowers the process's soft and hard limits; a hard limit that is lower already stays."""
    import resource  # Windows has none, and the caller must be able to import this file there

    limits = {
        "AS": memory_bytes,
        "CPU": int(seconds) + 2,  # the caller's clock runs out first; this limit matters if the caller was killed
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
