"""The mirrors that --track names: where a run is shown besides the terminal and metrics.jsonl."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Protocol

from adept.config.run import RunConfig
from adept.runs.claim import RunClaimed, claim_run
from adept.runs.layout import run_folder
from adept.runs.tracking.tensorboard_mirror import TensorBoardMirror
from adept.runs.tracking.wandb_mirror import WandbMirror


class Mirror(Protocol):
    """Shows one run elsewhere."""

    def log(self, values: dict, step: int) -> None:
        """Shows {name: number} of a step."""

    def summarise(self, values: dict) -> None:
        """Shows the run's final {name: number}."""

    def close(self, failed: bool) -> None:
        """Ends the run there."""


class NoMirror:
    """The mirror of a run that is shown nowhere else."""

    def log(self, values: dict, step: int) -> None: ...

    def summarise(self, values: dict) -> None: ...

    def close(self, failed: bool) -> None: ...


MIRRORS = {"wandb": WandbMirror, "tensorboard": TensorBoardMirror}
"""{value of --track: its class}."""


def open_mirror(config: RunConfig, folder: Path, trained: int, total: int) -> Mirror:
    """The mirror that --track names. trained, total: numbers of parameters. Raises UserError where it cannot start."""
    return MIRRORS[config.track](config, folder, trained, total) if config.track in MIRRORS else NoMirror()


def mirror_finished(config: RunConfig, record: dict) -> None:
    """Mirrors a finished run that was trained without --track, from its metrics.jsonl and its record."""
    folder = run_folder(config.results_dir, config.run_id)
    if config.track not in MIRRORS or (folder / MIRRORS[config.track].folder).exists():
        return
    with contextlib.suppress(RunClaimed), claim_run(config.results_dir, config.run_id):  # or another process does it
        folder.mkdir(parents=True, exist_ok=True)
        mirror = open_mirror(config, folder, record["trainable_params"], record["total_params"])
        metrics = folder / "metrics.jsonl"
        for line in metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else ():
            values = json.loads(line)
            mirror.log(values, values.pop("step"))
        mirror.summarise({"best_step": record["best_step"], **final_scores(record["validation"], record["test"])})
        mirror.close(failed=False)


def final_scores(validation: dict[str, float], test: dict[str, float]) -> dict[str, float]:
    """{"best/<metric>", "test/<metric>": percent} of the best checkpoint, as trackers name them."""
    return {f"best/{name}": value for name, value in validation.items()} | {
        f"test/{name}": value for name, value in test.items()
    }
