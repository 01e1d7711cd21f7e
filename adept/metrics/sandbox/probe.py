"""The child that finds out which layers of confinement this system has, by applying them to itself."""

from __future__ import annotations

from adept.metrics.sandbox.confinement import LAYERS, forbid_new_privileges
from adept.metrics.sandbox.wire import move_standard_pipes, send


def main() -> None:
    """Writes {layer: whether this system has it} to the caller."""
    _, caller = move_standard_pipes()
    forbid_new_privileges()
    available = {}
    for name, apply in LAYERS.items():
        try:
            apply()
            available[name] = True
        except OSError:
            available[name] = False
    send(caller, available)
