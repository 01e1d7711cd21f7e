"""Runs generated programs against their tests so that a program can neither do harm nor forge its verdict (Linux).

`run(Program(code, tests, entry_point))` returns Verdict(passed, reason); `run_all` runs many at once. A program passes
if no assertion fails and nothing is raised within 15 s, mxeval's criterion (Athiwaratkun et al., ICLR 2023,
"Multi-lingual Evaluation of Code Generation Models").

How a verdict is made
    A program takes two new processes, and the caller only starts and kills them:

        caller --- job ---> judge: runs the tests --- names, arguments ---> candidate: runs the program
               <- verdict -                       <- results, as data -----

    The tests, and with them the expected values, never enter the candidate's process. In the judge the function under
    test is a RemoteObject: calling it sends the arguments to the candidate. The result comes back as JSON, is rebuilt
    as None, bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, Fraction or
    Decimal, and is compared in the judge. An object of a class that the program defines stays in the candidate. The
    judge can pass it back as an argument (MBPP/367, 601 and 927 need this); comparing it is an error. A program can do
    what it likes to its own process (patch builtins, walk frames, write to every file descriptor, exit): it can send
    nothing but data, and data passes only if it is right.

How harm is prevented
    Both processes confine themselves before any of the program's or the tests' code runs:

    * seccomp (required), a list of allowed system calls: no sockets, no new process or thread, no exec, no signals, no
      ptrace, and no change to the file system, whoever the user is, root included;
    * Landlock (Linux 5.13): nothing can be read but Python's own folders, the system's libraries and the working
      folder, which holds nothing but the children's script; a second barrier against writing and TCP;
    * namespaces (where users may create them): no network device, a second barrier against the network;
    * resource limits (address space, CPU, file size 0, 64 open files, no core dump), no capabilities, no inherited
      environment, a temporary working folder, /dev/null as stdin, stdout and stderr, and SIGKILL for the process group
      after `Limits.seconds` of wall clock.

What is not prevented
    * Without Landlock a program can read what the user can read. It cannot send it anywhere, but this includes the
      expected values, in the caller's memory in /proc. With Landlock it can still find out whether a path exists.
    * Attacks on the kernel or on the CPU's caches.

What does not run
    A program fails if it needs a thread, a file of its own, input or an installed package. The tests do not see changes
    that a function makes to its arguments in place. No MBPP task needs any of these.

Files
    `caller.py` is what the package exports, `processes.py` starts and ends the children. `child.py` is the children's
    script; it runs `candidate.py`, `judge.py` or `probe.py`, which share `confinement.py` and `wire.py`.
"""

from adept.metrics.sandbox.caller import LIMITS, Limits, Program, Verdict, require_protection, run, run_all
from adept.metrics.sandbox.processes import available_layers

__all__ = ["LIMITS", "Limits", "Program", "Verdict", "available_layers", "require_protection", "run", "run_all"]
