"""A run's mirror in TensorBoard's event files."""

from __future__ import annotations

from pathlib import Path

from adept.base.errors import UserError
from adept.config.run import RunConfig


class TensorBoardMirror:
    """Writes a run's losses, rates and scores to RESULTS_DIR/runs/<run_id>/tensorboard.

    `tensorboard --logdir RESULTS_DIR/runs` (pip install tensorboard) shows all runs side by side. A run that is resumed
    goes on in the same folder.
    """

    folder = "tensorboard"
    """In the run's folder: the event files."""

    def __init__(self, config: RunConfig, folder: Path, trained: int, total: int):
        try:
            from tensorboardX import SummaryWriter  # writes the files without the packages that show them
        except ImportError as error:
            raise UserError(
                "--track tensorboard needs the tensorboardX package: pip install -r requirements.txt"
            ) from error
        self.writer = SummaryWriter(str(folder / self.folder))
        options = {"run_id": config.run_id, "trainable_params": trained, "total_params": total, **config.flat()}
        self.writer.add_text("options", "\n".join(f"    {name}: {value}" for name, value in options.items()))

    def log(self, values: dict, step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def summarise(self, values: dict) -> None:
        """Nothing: the best and the test scores are logged at their step."""

    def close(self, failed: bool) -> None:
        self.writer.close()
