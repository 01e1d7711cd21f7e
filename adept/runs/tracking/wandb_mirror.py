"""A run's mirror on wandb."""

from __future__ import annotations

from pathlib import Path

from adept.base.errors import UserError
from adept.config.identities import model_label
from adept.config.run import RunConfig


def group_of(config: RunConfig) -> str:
    """The run's wandb group."""
    return config.wandb_group or f"{config.task}-{model_label(config.model)}"


class WandbMirror:
    """Mirrors a run to wandb.

    A sweep's runs share the group of their table, other runs that of their task and model. The job type is the method;
    task, method, model and protocol are tags. A run that is resumed is the same run on wandb. WANDB_MODE=offline needs
    no account.
    """

    folder = "wandb"
    """In the run's folder: wandb's own files."""

    def __init__(self, config: RunConfig, folder: Path, trained: int, total: int):
        try:
            import wandb
        except ImportError as error:
            raise UserError("--track wandb needs the wandb package: pip install -r requirements.txt") from error
        try:
            self.run = wandb.init(
                project=config.wandb_project,
                group=group_of(config),
                name=config.run_id,
                id=config.run_id,
                resume="allow",
                job_type=config.method,
                tags=[config.task, config.method, model_label(config.model), config.protocol],
                config={**config.flat(), "run_id": config.run_id, "trainable_params": trained, "total_params": total},
                # Absolute, because wandb's own process serves all runs and keeps the folder in which it was started.
                dir=str(folder.absolute()),
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.errors.Error as error:
            raise UserError(
                f"wandb did not start: {str(error).splitlines()[0]}; WANDB_MODE=offline works without an account"
            ) from error
        self.run.define_metric("validation/*", step_metric="step")
        self.run.define_metric("train/*", step_metric="step")

    def log(self, values: dict, step: int) -> None:
        """Adds {metric: value} at a step."""
        self.run.log({"step": step, **values})

    def summarise(self, values: dict) -> None:
        """Sets {metric: value} of the whole run."""
        self.run.summary.update(values)

    def close(self, failed: bool) -> None:
        """Ends the run on wandb, as failed or as finished."""
        self.run.finish(exit_code=1 if failed else 0)
