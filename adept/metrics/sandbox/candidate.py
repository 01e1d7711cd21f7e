"""The child that runs the generated program, and that the program may take over once it is confined."""

from __future__ import annotations

import json
import os
import sys
import types

from adept.metrics.sandbox.confinement import confine_process
from adept.metrics.sandbox.wire import decode, encode, move_standard_pipes, send

TYPE_CHECKING = False  # importing typing would take a tenth of a child's start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


def main() -> NoReturn:
    """Loads the program, then answers the judge's calls until the judge closes the pipe.

    The first message is the job, {"code", "confinement"}; each later one is [function, arguments, keywords]. The answer
    to each is ["value", result] or ["error", class, nearest builtin class, message].
    """
    requests, replies = move_standard_pipes()
    job = json.loads(requests.readline())
    kept_objects: list[Any] = []  # results that are no plain data; the judge refers to them by their index
    program = types.ModuleType("program")
    sys.modules["program"] = program  # dataclasses and pickle look a class up by its module

    def keep_object(value: Any) -> dict:
        kept_objects.append(value)
        return {"kept": [len(kept_objects) - 1, type(value).__name__]}

    def look_up(name: str) -> Any:
        if name not in vars(program):
            raise NameError(f"name {name!r} is not defined")
        return vars(program)[name]

    def load_program() -> None:
        confine_process(**job["confinement"])
        exec(compile(job["code"], "program", "exec", dont_inherit=True), vars(program))

    def call_function(line: bytes) -> Any:
        decoders = {"kept": lambda content: kept_objects[content[0]], "name": look_up}
        function, arguments, keywords = decode(line, decoders)
        return function(*arguments, **keywords)

    def answer(work: Callable[..., Any], *arguments: Any) -> None:
        try:
            send(replies, ["value", encode(work(*arguments), keep_object)])
        except BaseException as error:
            error.__traceback__ = None  # frees the memory that its frames hold, which after a MemoryError is all of it
            send(replies, ["error", *describe(error)])

    answer(load_program)
    for line in requests:
        answer(call_function, line)
    os._exit(0)


def describe(error: BaseException) -> list[str]:
    """Returns [name of the class, name of its nearest builtin base class, message]."""
    base = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
    try:
        message = str(error)[:500]
    except BaseException:  # the program's own __str__ may raise anything
        message = ""
    return [type(error).__name__, base, message]
