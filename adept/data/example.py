"""One row of a task, as text and as token ids."""

from __future__ import annotations

from dataclasses import dataclass

IGNORED = -100
"""Label of positions without loss (torch's cross_entropy default)."""


@dataclass(frozen=True)
class Example:
    """One row as strings, and as ids once tokenised.

    id: "<hub split>:<row>" (and ":<number>" where a row makes several examples), so that a prediction can be traced to
    its row. group: examples with the same key are one question to the metrics.
    """

    id: str
    source: str
    target: str
    references: tuple[str, ...]
    group: str = ""
    source_ids: tuple[int, ...] = ()
    target_ids: tuple[int, ...] = ()  # EOS included

    @property
    def length(self) -> int:
        return len(self.source_ids) + len(self.target_ids)
