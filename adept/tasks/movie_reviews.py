"""movie_reviews: the bundled data set, which needs no hub (adept/models/bundled.py)."""

from __future__ import annotations

from adept.tasks.task import Split, Task

ROWS = (
    Task("movie_reviews", None, ("review",), ("negative", "positive"),
         split=Split.NATIVE, splits=("train", "validation", "test"), cue="sentiment:"),
)  # fmt: skip
