"""A run's configuration: its options, the YAML layers below the command line, and the command line itself."""

from __future__ import annotations

from adept.config.command_line import command_line, parse
from adept.config.layers import resolve
from adept.config.run import RunConfig, task_of

__all__ = ["RunConfig", "command_line", "parse", "resolve", "task_of"]
