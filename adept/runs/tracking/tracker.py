"""What a run shows while it runs: progress bar, console lines, metrics.jsonl."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from tqdm import tqdm

from adept.base import distributed
from adept.base.atomic_files import report_disk_errors
from adept.config.run import RunConfig
from adept.runs.tracking.wandb_mirror import NoMirror, WandbMirror


class Tracker:
    """One run's display. As a context manager it closes bar, file and mirror, also when the run fails."""

    def __init__(self, config: RunConfig, folder: Path, groups: dict[str, dict], mirror, start: int = 0):
        """start: the steps that are done already. Lines are added to the metrics.jsonl that is there."""
        self.select_on, self.mirror = config.select_on, mirror
        self.short = {
            name: "offset_lr" if "offset" in name else "prompt_lr" if name.endswith("prompt") else "lr"
            for name in groups
        }
        with report_disk_errors(folder / "metrics.jsonl"):
            folder.mkdir(parents=True, exist_ok=True)
            self.file = open(folder / "metrics.jsonl", "ab", buffering=0)  # noqa: SIM115 - closed by __exit__
        interval = 0.5 if sys.stderr.isatty() else 60.0  # a log file needs no animation
        self.bar = tqdm(
            total=config.steps,
            initial=start,
            desc=f"{config.task} {config.method}",
            unit="step",
            dynamic_ncols=True,
            mininterval=interval,
        )
        self.shown: dict[str, str] = {}

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.bar.close()
        self.file.close()
        self.mirror.close(failed=kind is not None)

    def line(self, step: int, values: dict) -> None:
        with report_disk_errors(Path(self.file.name)):
            line = json.dumps({"step": step, **values}).encode() + b"\n"
            while line:  # on a disk that is nearly full a part is written, and the next attempt says so
                line = line[self.file.write(line) :]
        self.mirror.log(values, step)

    def step(self, step: int, loss: float, rates: dict[str, float]) -> None:
        """`step` steps are done; loss is the mean since the last call, rates the last step's."""
        named = {self.short[name]: rate for name, rate in rates.items()}
        self.shown |= {"loss": f"{loss:.3f}", **{name: f"{rate:.1e}" for name, rate in named.items()}}
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update(step - self.bar.n)
        self.line(step, {"train/loss": loss, **{f"train/{name}": rate for name, rate in named.items()}})

    def evaluated(self, entry: dict, best: dict) -> None:
        """entry: the history's newest; best: {"step", "validation", ...}. Says nothing where no rows validate."""
        if not entry["validation"]:
            return
        self.shown["best"] = f"{best['validation'][self.select_on]:.2f}@{best['step']}"
        self.bar.set_postfix(self.shown, refresh=sys.stderr.isatty())
        scores = "  ".join(f"{name} {value:.2f}" for name, value in entry["validation"].items())
        self.bar.write(f"  step {entry['step']:>6}  validation {scores}  (best {self.shown['best']})", file=sys.stderr)
        self.line(entry["step"], {f"validation/{name}": value for name, value in entry["validation"].items()})

    def finish(self, best: dict, test: dict[str, float]) -> None:
        """The run's end: the best checkpoint's validation and test scores."""
        values = {f"best/{name}": value for name, value in best["validation"].items()} | {
            f"test/{name}": value for name, value in test.items()
        }
        self.line(best["step"], values)
        self.mirror.summarise({"best_step": best["step"], **values})


class SilentTracker(contextlib.nullcontext):
    """The tracker of a process that is not the first."""

    def __enter__(self):
        return self

    def step(self, *_) -> None: ...

    def evaluated(self, *_) -> None: ...

    def finish(self, *_) -> None: ...


def make_tracker(
    config: RunConfig, folder: Path, groups: dict[str, dict], parameters: tuple[int, int], start: int = 0
) -> Tracker | SilentTracker:
    """The display of a run that begins after `start` steps; silent in every process but the first. Makes the folder.

    groups: {regex: {"lr", "params"}}; parameters: how many are trained, and how many the model has in all.
    """
    if distributed.RANK:
        return SilentTracker()
    with report_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    mirror = WandbMirror(config, folder, *parameters) if config.track == "wandb" else NoMirror()
    return Tracker(config, folder, groups, mirror, start)
