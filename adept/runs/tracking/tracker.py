"""What a run shows while it runs: progress bar, console lines, metrics.jsonl."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from tqdm import tqdm

from adept.base import distributed
from adept.base.atomic_files import report_disk_errors
from adept.base.console import bar_interval
from adept.config.run import RunConfig
from adept.runs.tracking.mirrors import Mirror, final_scores, open_mirror


class Tracker:
    """Shows one run on a progress bar, in metrics.jsonl and in its mirror.

    As a context manager it closes all three, also when the run fails.
    """

    def __init__(self, config: RunConfig, folder: Path, groups: dict[str, dict], mirror: Mirror, start: int = 0):
        """start: steps that are done already. Lines are appended to an existing metrics.jsonl.

        groups: {regex: {"lr", "params"}}. mirror: where else the run is shown.
        """
        self.select_on, self.mirror = config.select_on, mirror
        self.short_names = {
            name: "offset_lr" if "offset" in name else "prompt_lr" if name.endswith("prompt") else "lr"
            for name in groups
        }
        with report_disk_errors(folder / "metrics.jsonl"):
            folder.mkdir(parents=True, exist_ok=True)
            self.file = open(folder / "metrics.jsonl", "ab", buffering=0)  # noqa: SIM115 - closed by __exit__
        self.bar = tqdm(
            total=config.steps,
            initial=start,
            desc=f"{config.task} {config.method}",
            unit="step",
            dynamic_ncols=True,
            mininterval=bar_interval(),
        )
        self.shown: dict[str, str] = {}

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.bar.close()
        self.file.close()
        self.mirror.close(failed=kind is not None)

    def line(self, step: int, values: dict) -> None:
        """Writes a line to metrics.jsonl and to the mirror. Raises UserError when the disk refuses."""
        with report_disk_errors(Path(self.file.name)):
            line = json.dumps({"step": step, **values}).encode() + b"\n"
            while line:  # a disk that is nearly full takes a part, and refuses at the next attempt
                line = line[self.file.write(line) :]
        self.mirror.log(values, step)

    def step(self, step: int, loss: float, rates: dict[str, float]) -> None:
        """Shows `step` steps as done. loss: the mean since the last call; rates: {regex: rate of the last step}."""
        named = {self.short_names[name]: rate for name, rate in rates.items()}
        self.shown |= {"loss": f"{loss:.3f}", **{name: f"{rate:.1e}" for name, rate in named.items()}}
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update(step - self.bar.n)
        self.line(step, {"train/loss": loss, **{f"train/{name}": rate for name, rate in named.items()}})

    def evaluated(self, entry: dict, best: dict) -> None:
        """Shows an evaluation, unless it is of no rows.

        entry: the newest of the history; best: {"step", "validation", ...}.
        """
        if not entry["validation"]:
            return
        self.shown["best"] = f"{best['validation'][self.select_on]:.2f}@{best['step']}"
        self.bar.set_postfix(self.shown, refresh=sys.stderr.isatty())
        scores = "  ".join(f"{name} {value:.2f}" for name, value in entry["validation"].items())
        self.bar.write(f"  step {entry['step']:>6}  validation {scores}  (best {self.shown['best']})", file=sys.stderr)
        self.line(entry["step"], {f"validation/{name}": value for name, value in entry["validation"].items()})

    def finish(self, best: dict, test: dict[str, float]) -> None:
        """Shows the validation and test scores of the best checkpoint."""
        values = final_scores(best["validation"], test)
        self.line(best["step"], values)
        self.mirror.summarise({"best_step": best["step"], **values})


class SilentTracker(contextlib.nullcontext):
    """The tracker of a process that is not the main process: it shows nothing."""

    def __enter__(self):
        return self

    def step(self, *_) -> None: ...

    def evaluated(self, *_) -> None: ...

    def finish(self, *_) -> None: ...


def make_tracker(
    config: RunConfig, folder: Path, groups: dict[str, dict], parameters: tuple[int, int], start: int = 0
) -> Tracker | SilentTracker:
    """The tracker of a run that begins after `start` steps; it is silent in all processes but the main one.

    Makes the folder. groups: {regex: {"lr", "params"}}; parameters: (number of trained parameters, of all parameters).
    """
    if distributed.RANK:
        return SilentTracker()
    with report_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return Tracker(config, folder, groups, open_mirror(config, folder, *parameters), start)
