"""The code and the package versions that made a run."""

from __future__ import annotations

import functools
import importlib
import subprocess

from adept.base.paths import ROOT

PACKAGES = ("torch", "transformers", "peft", "datasets", "numpy", "scipy", "scikit-learn")


def package_version(name: str) -> str | None:
    """The installed version; None where the package is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def git_state() -> dict:
    """{"git": commit or None, "dirty": uncommitted changes in the code}."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    return {
        "git": git("rev-parse", "HEAD"),
        "dirty": bool(git("status", "--porcelain", "--", "adept", "configs", "train.py", "requirements.txt")),
    }
