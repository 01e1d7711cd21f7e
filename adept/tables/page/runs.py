"""The runs that the page shows: their addresses, their lines in the list, and the JSON that its script reads."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from adept.config.identities import model_label
from adept.config.run import RunConfig
from adept.runs.layout import record_path, run_folder
from adept.runs.predictions import Prediction
from adept.tables.page.formatting import downsample, thousands, to_json, truncate, typographic_minus, unique_id
from adept.tables.page.views import FILTERS, Attributes
from adept.tables.report import MISSING, View

PREDICTIONS_PER_RUN, PREDICTIONS_PER_PAGE = 30, 9000
"""Predictions that are embedded, at most."""

HISTORY_ENTRIES = 200
"""Evaluations of a run that are embedded, at most."""

EMBEDDED_KEYS = (
    "run_id", "trainable_params", "total_params", "param_groups", "best_step", "validation", "test", "sizes", "notes",
    "timing", "peak_memory_bytes", "provenance", "scoring_agreement", "tokens_per_example",
)  # fmt: skip
"""Keys of a record that are embedded as they are."""

MACHINE_FIELDS = ("data_dir", "results_dir")
"""Fields of a config that say something about the machine and not about the run."""


@dataclass(frozen=True)
class RunLink:
    """A link to runs. href: the first one's line in the list; run_ids: of all, a line each, which the script shows."""

    href: str
    run_ids: str


@dataclass(frozen=True)
class RunLine:
    """A run in the list of all runs."""

    run_id: str
    anchor: str
    link: RunLink
    file: str
    texts: Sequence[str]
    attributes: Attributes


class RunIndex:
    """The runs that a cell of `views` shows, in the order of the tables.

    records: {run id: record}. anchors: {run id: the id of its line in the list}. folder: where the page stands.
    """

    def __init__(self, views: Sequence[View], folder: Path):
        self.records: dict[str, dict] = {}
        self.anchors: dict[str, str] = {}
        self._folder = folder
        self._results_dirs: dict[str, str] = {}
        taken: set[str] = set()
        for view in views:
            for cell in view.all_cells:
                for record in itertools.chain(cell.records, *cell.configurations):
                    self._results_dirs.setdefault(record["run_id"], str(view.table.results_dir))
                for record in cell.records:
                    if record["run_id"] not in self.records:
                        self.records[record["run_id"]] = record
                        self.anchors[record["run_id"]] = unique_id(f"run-{record['run_id']}", taken)

    def record_address(self, run_id: str) -> str:
        """The address of the record's file, relative to the page."""
        return self.address(record_path(self._results_dirs[run_id], run_id))

    def predictions_path(self, run_id: str) -> Path:
        return run_folder(self._results_dirs[run_id], run_id) / "predictions.jsonl"

    def address(self, path: Path) -> str:
        return quote(Path(os.path.relpath(path, self._folder)).as_posix())

    def link(self, records: Sequence[dict]) -> RunLink:
        run_ids = list(dict.fromkeys(record["run_id"] for record in records))
        return RunLink(f"#{quote(self.anchors[run_ids[0]])}", "\n".join(run_ids))


def run_lines(runs: RunIndex) -> list[RunLine]:
    return [run_line(record, runs) for record in runs.records.values()]


def run_line(record: dict, runs: RunIndex) -> RunLine:
    run_id, config = record["run_id"], record["config"]
    known = {
        name: model_label(str(config[name])) if name == "model" else str(config[name])
        for name in FILTERS
        if name in config
    }
    numbers = [str(config.get("seed", MISSING)), thousands(record["trainable_params"]), thousands(record["best_step"])]
    scores = [scores_text(record[split]) or MISSING for split in ("validation", "test")]
    texts = [*(known.get(name, MISSING) for name in FILTERS), *numbers, *scores]
    attributes = {name: f"|{value}|" for name, value in known.items()}
    return RunLine(run_id, runs.anchors[run_id], runs.link([record]), runs.record_address(run_id), texts, attributes)


def scores_text(scores: Mapping[str, float]) -> str:
    """ "81.2 accuracy, 79.5 f1"."""
    return ", ".join(f"{typographic_minus(f'{value:.1f}')} {metric}" for metric, value in scores.items())


def embedded_data(runs: RunIndex) -> dict[str, Any]:
    """What the page's script reads: {"defaults": of RunConfig, "runs": {run id: the record, shortened}}."""
    limit = min(PREDICTIONS_PER_RUN, max(5, PREDICTIONS_PER_PAGE // max(1, len(runs.records))))
    defaults = {
        name: field.default
        for name, field in RunConfig.own_options().items()
        if isinstance(field.default, (str, int, float, bool))
    }
    by_id = {run_id: embedded_run(record, runs, limit) for run_id, record in runs.records.items()}
    return to_json({"defaults": defaults, "runs": by_id})


def embedded_run(record: dict, runs: RunIndex, predictions: int) -> dict[str, Any]:
    """predictions: how many of them, at most."""
    run_id, history = record["run_id"], record["history"]
    best = [index for index, entry in enumerate(history) if entry["step"] == record["best_step"]][:1]
    entry_keys = ("step", "train_loss", "validation", "seconds")
    data = {
        **{key: record[key] for key in EMBEDDED_KEYS if key in record},
        "anchor": runs.anchors[run_id],
        "file": runs.record_address(run_id),
        "config": {
            name: value for name, value in record["config"].items() if value is not None and name not in MACHINE_FIELDS
        },
        "history": [
            {key: entry[key] for key in entry_keys if key in entry}
            for entry in downsample(history, HISTORY_ENTRIES, best)
        ],
        "evaluations": len(history),
    }
    if offsets := record.get("offsets"):
        data["offsets"] = {
            name: {key: offsets[name][key] for key in ("mean", "variance") if key in offsets[name]}
            for name in ("embeddings", "offset")
            if offsets.get(name)
        }
    path = runs.predictions_path(run_id)
    if first := first_predictions(path, predictions):
        data |= {"predictions": first, "predictions_file": runs.address(path)}
    return data


def first_predictions(path: Path, limit: int) -> list[list]:
    """[id, prediction, references] of the first `limit` test rows; empty where there is no file or it is damaged."""
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            rows = [json.loads(line) for line in itertools.islice(file, limit) if line.strip()]
    except (ValueError, RecursionError):
        return []
    shown = []
    for row in rows:
        with contextlib.suppress(ValidationError):  # a row that is no prediction is left out
            one = Prediction.model_validate(row)
            shown.append([truncate(one.id), truncate(one.prediction), [truncate(text) for text in one.references[:4]]])
    return shown
