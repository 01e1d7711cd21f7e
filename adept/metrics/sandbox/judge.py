"""The child that runs the tests. It trusts the tests and nothing that the candidate sends."""

from __future__ import annotations

import builtins
import json
import os
import sys

from adept.metrics.sandbox.confinement import confine_process
from adept.metrics.sandbox.wire import EXITED, decode, encode, move_standard_pipes, send

TYPE_CHECKING = False  # importing typing would take a tenth of a child's start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO, NoReturn


def main(request_end: str, reply_end: str) -> NoReturn:
    """Reads the job from the caller, runs its tests against the candidate, writes {"passed", "reason"} to the caller.

    Args:
        request_end, reply_end: file descriptors of the pipes to and from the candidate.
    """
    caller, verdict = move_standard_pipes()
    job = json.loads(caller.readline())
    confine_process(**job["confinement"])
    requests, replies = os.fdopen(int(request_end), "wb"), os.fdopen(int(reply_end), "rb")
    candidate = CandidateConnection(requests, replies, job["result_bytes"])
    try:
        candidate.request({"code": job["code"], "confinement": job["confinement"]})
        run_tests(job["tests"], job["entry_point"], lambda name: RemoteObject(candidate, {"name": name}, name))
    except (Exception, CandidateStopped) as error:
        # Text of the program can enter the verdict only here, where it has failed.
        send(verdict, {"passed": False, "reason": " ".join(reason_of(error)[:300].split())})
    else:
        send(verdict, {"passed": True, "reason": "passed"})
    os._exit(0)


class CandidateStopped(BaseException):
    """The candidate cannot be asked any further. Not an Exception, so that a test that catches those does not go on."""


class RemoteObject:
    """Stands for an object of the candidate. It can be called or passed back as an argument, but never compared."""

    def __init__(self, candidate: CandidateConnection, reference: dict, kind: str):
        """reference: the object's JSON form, {"name": ...} or {"kept": ...}. kind: what error messages call it."""
        self.candidate, self.reference, self.kind = candidate, reference, kind

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.candidate.request(encode([self, arguments, keywords], encode_remote_object))

    def __eq__(self, *_: object) -> bool:
        raise TypeError(f"{self.kind} object is no plain data")

    __bool__ = __eq__


def encode_remote_object(value: Any) -> dict:
    """The `encode_other` of the judge. Raises TypeError for an object of a test's own, which only the judge has."""
    if isinstance(value, RemoteObject):
        return value.reference
    raise TypeError(f"a test passes a {type(value).__name__}, which is no plain data")


class CandidateConnection:
    """The judge's ends of the two pipes."""

    def __init__(self, requests: BinaryIO, replies: BinaryIO, result_bytes: int):
        """result_bytes: the longest line that is read as one result."""
        self.requests, self.replies, self.result_bytes = requests, replies, result_bytes

    def request(self, message: Any) -> Any:
        """Sends `message` and returns the result as plain data and RemoteObjects.

        Raises what the program raised, as its nearest builtin exception, or CandidateStopped.
        """
        decoders = {"kept": lambda content: RemoteObject(self, {"kept": content}, str(content[1])[:50])}
        try:
            send(self.requests, message)
            line = self.replies.readline(self.result_bytes)
        except BrokenPipeError:
            line = b""
        if not line.endswith(b"\n"):
            raise CandidateStopped("result too large" if len(line) == self.result_bytes else EXITED)
        try:
            status, *content = decode(line, decoders)
            if status == "value":
                (result,) = content
                return result
            error = rebuild_exception(*content)
        except MemoryError:
            raise
        except Exception as unreadable:
            raise CandidateStopped(f"unreadable result: {type(unreadable).__name__}") from None
        raise error


def rebuild_exception(name: str, base: str, message: str) -> BaseException:
    """Returns an exception of builtin class `base` for what the program raised, with its `verdict_reason`.

    If `base` is not an Exception (SystemExit, KeyboardInterrupt ...), returns CandidateStopped.
    """
    kind = getattr(builtins, base)
    if not issubclass(kind, Exception):
        return CandidateStopped(f"{EXITED}: {name}")
    try:
        error = kind(message)
    except TypeError:  # UnicodeDecodeError and others take more arguments
        error = Exception(message)
    if issubclass(kind, SyntaxError):
        error.verdict_reason = f"syntax error: {message}"
    elif kind is MemoryError:
        error.verdict_reason = "memory limit"
    else:
        error.verdict_reason = f"{name}: {message}" if message else str(name)
    return error


def reason_of(error: BaseException) -> str:
    """Returns the verdict's reason, in a few words."""
    match error:
        case Exception(verdict_reason=reason):  # the program raised it
            return reason
        case AssertionError():
            return "assertion failed"
        case MemoryError():
            return "memory limit"
        case CandidateStopped():
            return str(error)
    return f"{type(error).__name__}: {error}"


def run_tests(tests: str, entry_point: str, remote: Callable[[str], RemoteObject]) -> None:
    """Runs tests in MBXP's form (they define check(candidate)) or the original one (assertions that name the function).

    Args:
        remote: returns the program's object of a name.

    Raises what the tests raise.
    """
    used, defined = global_names(tests)
    namespace: dict[str, Any] = {"__name__": "tests", entry_point: remote(entry_point)}
    # names that the tests use without defining them: modules or the program's own (MBPP/596: sys; 601: Pair)
    for name in used - defined - set(dir(builtins)) - {entry_point}:
        namespace[name] = __import__(name) if name in sys.stdlib_module_names else remote(name)
    exec(compile(tests, "tests", "exec", dont_inherit=True), namespace)
    if "check" in defined:
        namespace["check"](remote(entry_point))


def global_names(source: str) -> tuple[set[str], set[str]]:
    """Returns (the global names that `source` uses, those that it defines)."""
    import symtable  # here, because it takes time and only the judge needs it

    module = symtable.symtable(source, "tests", "exec")
    scopes = [module]
    for scope in scopes:
        scopes += scope.get_children()
    used = {
        symbol.get_name()
        for scope in scopes
        for symbol in scope.get_symbols()
        if symbol.is_referenced() and (scope is module or symbol.is_global())
    }
    return used, {symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
