"""What a run shows while it runs: progress bar, console lines, metrics.jsonl, and a wandb mirror with a no-op twin."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from adept import files, parallel
from adept.config import RunConfig, UserError, model_label

if TYPE_CHECKING:
    from adept.loop import Session


def say(text: str) -> None:
    """One line for whoever watches, above the progress bar if there is one. Of several processes the first speaks."""
    if parallel.RANK == 0:
        tqdm.write(text, file=sys.stderr)


class NoMirror:
    """Takes what wandb would, and does nothing."""

    def log(self, values: dict, step: int) -> None: ...

    def summarise(self, values: dict) -> None: ...

    def close(self, failed: bool) -> None: ...


def group_of(config: RunConfig) -> str:
    """The run's wandb group."""
    return config.wandb_group or f"{config.task}-{model_label(config.model)}"


class WandbMirror:
    """Mirrors a run to wandb. A sweep's runs share its table's group, others that of their task and model; the job type is the method;
    method, protocol and task are tags. WANDB_MODE=offline needs no account. A run that goes on is the same one there."""

    def __init__(self, config: RunConfig, folder: Path, session: Session):
        try:
            import wandb
        except ImportError as error:
            raise UserError("--track wandb needs the wandb package: pip install -r requirements.txt") from error
        trained = sum(p.numel() for p in session.trainables.values())
        total = sum(p.numel() for p in session.model.parameters())
        try:
            self.run = wandb.init(
                project=config.wandb_project,
                group=group_of(config),
                name=config.run_id,
                id=config.run_id,
                resume="allow",
                job_type=config.method,
                tags=[config.task, config.method, model_label(config.model), config.protocol],
                config={**dataclasses.asdict(config), "run_id": config.run_id, "trainable_params": trained, "total_params": total},
                dir=str(folder.absolute()),  # one process of wandb serves all runs of ours, and stays in the folder where it was started
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.errors.Error as error:
            raise UserError(f"wandb did not start: {str(error).splitlines()[0]}; WANDB_MODE=offline works without an account") from error
        self.run.define_metric("validation/*", step_metric="step")
        self.run.define_metric("train/*", step_metric="step")

    def log(self, values: dict, step: int) -> None:
        self.run.log({"step": step, **values})

    def summarise(self, values: dict) -> None:
        self.run.summary.update(values)

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=1 if failed else 0)


class Tracker:
    """One run's display. As a context manager it closes bar, file and mirror, also when the run fails."""

    def __init__(self, config: RunConfig, folder: Path, groups: dict[str, dict], mirror, start: int = 0):
        """start: the steps that are done already. Lines are added to the metrics.jsonl that is there."""
        self.select_on, self.mirror = config.select_on, mirror
        self.short = {name: "offset_lr" if "offset" in name else "prompt_lr" if name.endswith("prompt") else "lr" for name in groups}
        with files.told(folder / "metrics.jsonl"):
            folder.mkdir(parents=True, exist_ok=True)
            self.file = open(folder / "metrics.jsonl", "ab", buffering=0)  # noqa: SIM115 - closed by __exit__
        interval = 0.5 if sys.stderr.isatty() else 60.0  # a log file needs no animation
        self.bar = tqdm(
            total=config.steps, initial=start, desc=f"{config.task} {config.method}", unit="step", dynamic_ncols=True, mininterval=interval
        )
        self.shown: dict[str, str] = {}

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.bar.close()
        self.file.close()
        self.mirror.close(failed=kind is not None)

    def line(self, step: int, values: dict) -> None:
        with files.told(Path(self.file.name)):
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


class Silent(contextlib.nullcontext):
    """The tracker of a process that is not the first."""

    def __enter__(self):
        return self

    def step(self, *_) -> None: ...

    def evaluated(self, *_) -> None: ...

    def finish(self, *_) -> None: ...


def make_tracker(config: RunConfig, folder: Path, groups: dict[str, dict], session: Session, start: int = 0) -> Tracker | Silent:
    """The display of a run that begins after `start` steps; silent in every process but the first. Makes the folder."""
    if parallel.RANK:
        return Silent()
    with files.told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    mirror = WandbMirror(config, folder, session) if config.track == "wandb" else NoMirror()
    return Tracker(config, folder, groups, mirror, start)
