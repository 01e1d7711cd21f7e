"""With which flags a table was swept: a file beside the results, so that a report needs no flags again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from adept.base.atomic_files import write_atomically
from adept.base.console import print_status
from adept.base.errors import UserError
from adept.base.validation import FileContent, validate
from adept.tables.table import Table
from adept.tables.table_file import load_table

ENDING = ".sweep.json"


class Manifest(FileContent):
    """The flags of a sweep, without --results_dir."""

    may_be_empty = frozenset({"profile", "options", "only"})

    table: str
    """The table's name."""
    profile: str = ""
    options: dict[str, Any] = Field(default_factory=dict)
    only: list[str] = Field(default_factory=list)

    @property
    def flags(self) -> str:
        """As they are typed; "no flags" where there are none."""
        words = ["--profile", self.profile] if self.profile else []
        words += [word for text in self.only for word in ("--only", text)]
        texts = {name: "none" if value is None else str(value) for name, value in self.options.items()}
        words += [word for name, text in texts.items() for word in (f"--{name}", text)]
        return shlex.join(words) or "no flags"


def manifest_path(table: Table) -> Path:
    return table.results_dir / "tables" / f"{table.file_name}{ENDING}"


def write_manifest(table: Table) -> None:
    """Notes beside the table's files with which flags it is swept. Raises UserError when the disk refuses."""
    content = {
        "table": table.name,
        "profile": table.profile or "",
        "options": {name: value for name, value in table.overrides.items() if name != "results_dir"},
        "only": [f"{name}={value}" for name, values in table.only.items() for value in values],
    }
    write_atomically(manifest_path(table), json.dumps(content, indent=1) + "\n")


def as_swept(table: Table) -> Table:
    """The table with the flags that it was swept with, where it has none of its own and was swept with one set of them.

    Raises UserError where it was swept with several, and for a manifest that is damaged.
    """
    if table.profile or table.only or table.changes or manifest_path(table).is_file():
        return table
    found = read_manifests(table)
    if len(found) > 1:
        choices = " | ".join(manifest.flags for manifest in found)
        raise UserError(
            f"{table.path} was swept in several ways in {table.results_dir}; repeat the flags of one: {choices}"
        )
    if not found:
        return table
    print_status(f"as it was swept: {found[0].flags}")
    options = {**found[0].options, **table.overrides}
    return load_table(Path(table.path), options, found[0].profile or None, found[0].only)


def read_manifests(table: Table) -> Sequence[Manifest]:
    """The manifests of the table's sweeps in its results folder."""
    manifests = []
    for path in sorted((table.results_dir / "tables").glob(f"*{ENDING}")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} is not readable ({error}); remove it, and repeat the sweep's flags") from error
        if not isinstance(content, dict):
            raise UserError(f"{path} holds no flags of a sweep; remove it, and repeat the sweep's flags")
        manifest = validate(Manifest, content, str(path))
        if manifest.table == table.name:
            manifests.append(manifest)
    return manifests
