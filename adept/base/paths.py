"""Where the project's own files are."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent

ROOT = PACKAGE.parent if (PACKAGE.parent / "configs" / "base.yaml").is_file() else PACKAGE / "checkout"
"""The folder that holds configs/, data/ and results/: the checkout, wherever a command is typed, or what an installed
package carries.
"""
