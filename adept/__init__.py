"""adept: prompt tuning with adaptive decomposed prompts (ADePT), its rivals, its tasks and its protocol.

    import adept

    config = adept.resolve({"task": "movie_reviews", "model": "smollm2-135m", "method": "adept"})
    record = adept.run(config)
    session = adept.load(record["run_id"])

README.md of this folder describes the packages. Importing `adept` imports nothing else.
"""

from __future__ import annotations

import importlib
from typing import Any

PUBLIC = {
    "RunConfig": "adept.config.run",
    "UserError": "adept.base.errors",
    "load": "adept.serving.load",
    "resolve": "adept.config.layers",
    "run": "adept.training.loop",
}
"""Name -> the module that it is imported from when it is first used: torch takes seconds to import."""

__all__ = ["RunConfig", "UserError", "load", "resolve", "run"]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'adept' has no attribute '{name}'")
    return getattr(importlib.import_module(PUBLIC[name]), name)
