"""UserError, the one line that a user's mistake costs, and what such lines are made of."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

SECRET = re.compile(
    r"(?<=://)[^/\s@]+(?=@)|(?<=:/)[^/\s@:]*:[^/\s@]+(?=@)"  # https://user:password@host; Path() makes one slash of two
    r"|(?<=[?&])(?:[\w-]*(?:token|secret|password|signature)[\w-]*|\w*key)=[^&#\s'\"]+"  # https://host/path?token=...
    r"|\b(?:hf_[A-Za-z0-9]{30,}|A[KS]IA[A-Z0-9]{16})\b",  # of the Hugging Face hub, of AWS
    re.IGNORECASE,
)
"""What no value may hold: values are written into records, adapters, logs and wandb."""

LONGEST_LINE = 2000


class UserError(Exception):
    """A mistake in the input. Its text is the one line that a user sees: what was wrong, and what would be right.

    The text may quote foreign files, so it is made printable here: one line of bounded length, without control
    characters and secrets.
    """

    def __init__(self, text: str):
        line = re.sub(
            r"(?:\x1b\[[\d;]*m|[\x00-\x1f\x7f-\x9f\u2028\u2029])+", " ", SECRET.sub("***", text[: 4 * LONGEST_LINE])
        )
        super().__init__(line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + "...")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error line: the known name that is nearest to `name`, or all of them where none is near."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


def first_line(error: BaseException, limit: int = 160) -> str:
    """The beginning of an error's text on one line."""
    return re.sub(r"\s+", " ", str(error)).strip()[:limit]


def error_text(error: UserError | OSError) -> str:
    """The line that a command prints before it exits with 2.

    error: a user's mistake, or what the machine refuses (a full disk).
    """
    return str(error if isinstance(error, UserError) else UserError(first_line(error)))
