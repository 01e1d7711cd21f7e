"""Post-processing of MBPP completions: LoPA's two stages, before the programs are run.

Stage 1 (`cut_completion`) removes what follows a stop word, stage 2 (`clean_completion`) removes more on top of it.
"""

from __future__ import annotations

import ast
import re

BODY_STOP_WORDS = (
    "\ndef",
    "\nclass",
    "\nassert",
    '\n"""',
    "\nprint",
    "\nif",
    "\n<|/",
    "\n```",
    "<｜end▁of▁sentence｜>",
)
"""The completion of a function's body ends at the first of these (LoPA's stop words)."""

PROGRAM_STOP_WORDS = ("[DONE]", "\nassert", "\nprint", "\n```", "\n<|/")
"""A whole program may hold several functions, so it ends at its end mark, or where tests or other text begin."""


def cut_completion(completion: str, *, body: bool) -> str:
    """Stage 1: removes the first stop word and everything after it.

    Args:
        body: whether the completion is the body of a function (else it is a whole program).
    """
    positions = (completion.find(word) for word in (BODY_STOP_WORDS if body else PROGRAM_STOP_WORDS))
    return completion[: min((position for position in positions if position >= 0), default=len(completion))]


def clean_completion(completion: str, before: str, cleanup: str) -> str:
    """Stage 2, on top of stage 1.

    Args:
        completion: what stage 1 returned.
        before: the code that stands before it (signature and docstring).
        cleanup: "return" ends the function at its return statement; "lines" drops stray lines and indents the others
            again (Llama-3).
    """
    return end_at_return(completion) if cleanup == "return" else drop_stray_lines(completion, before)


def indentation(line: str) -> str:
    """Returns the white space at the line's beginning."""
    return line[: len(line) - len(line.lstrip())]


def end_at_return(completion: str) -> str:
    """Removes what follows the return statement that ends the function's body, also within that statement's last line.

    The last line is cut at the point from which on it is not Python. This is LoPA's heuristic with two corrections: a
    return statement over several lines stays whole, and a body without a return statement stays as it is.
    """
    lines = completion.split("\n")
    body_depth = len(indentation(next((line for line in lines if line.strip()), "")))
    returns = []
    for number, line in enumerate(lines):
        depth = len(indentation(line))
        if re.match(r"\s*return\b", line):
            if depth >= body_depth:
                returns.append(number)
            if depth <= body_depth:
                break
    if not returns:
        return completion
    last = returns[-1]
    for end in range(last + 1, len(lines) + 1):
        if is_statement("\n".join(lines[last:end]).strip()):
            return "\n".join(lines[:end])
    line = lines[last].rstrip()
    ends = (end for end in range(len(line), len(indentation(line)), -1) if is_statement(line[:end].strip()))
    return "\n".join([*lines[:last], line[: next(ends, len(line))].rstrip()])


def is_statement(code: str) -> bool:
    """Whether `code` is valid Python inside a function."""
    try:
        ast.parse(f"def f():\n {code}")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def drop_stray_lines(completion: str, before: str) -> str:
    """Removes lines that begin with ":", "//" or "."; indents the rest so that its first line aligns with `before`."""
    lines = [line for line in completion.split("\n") if not line.strip().startswith((":", "//", "."))]
    wanted = indentation(next((line for line in reversed(before.split("\n")) if line.strip()), ""))
    found = indentation(next((line for line in lines if line.strip()), ""))
    return "\n".join(wanted + line.removeprefix(found) if line.strip() else line for line in lines)
