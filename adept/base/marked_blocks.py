"""Generated parts of a document that is otherwise written by hand: `<!-- table: NAME -->`, the part, `<!-- end -->`."""

from __future__ import annotations

import re
from pathlib import Path

from adept.base.atomic_files import write_atomically

END = "<!-- end -->"


def write_block(path: Path, name: str, text: str, heading: str) -> None:
    """Puts `text` between the marks of `name`; what stands around them stays.

    A document without these marks gets them at its end, and one that is not there begins with `heading`.
    """
    mark = f"<!-- table: {name} -->\n"
    document = path.read_text(encoding="utf-8") if path.exists() else f"{heading.rstrip()}\n"
    block = re.compile(rf"(^|\n){re.escape(mark)}.*?{re.escape(END)}", re.DOTALL)
    if not block.search(document):
        document = f"{document.rstrip()}\n\n{mark}{END}\n"
    write_atomically(path, block.sub(lambda found: f"{found[1]}{mark}{text.rstrip()}\n{END}", document, count=1))
