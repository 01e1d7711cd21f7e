"""A whole run by PEFT and transformers' Trainer, from the command to the adapter and its scores on disk.

python -m adept.bench.trainer_run --task movie_reviews --model smollm2-135m --method pt --results_dir DIR

It takes the flags of train.py, loads the same model and rows, validates as often, keeps the best checkpoint and tests
it. Writes DIR/adapter and DIR/scores.json. For decoder-only models.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from adept.base.atomic_files import write_atomically
from adept.bench.trainer import feature, make_trainer, peft_model, trainer_codec
from adept.config.command_line import command_line, parse
from adept.config.layers import resolve
from adept.config.run import task_of
from adept.data.dataset import load_data, with_steps
from adept.models.capabilities import capabilities_of
from adept.models.loading import load_model
from adept.training.session import make_codec, pick_device, seed_everything


def main(arguments: list[str]) -> int:
    flags, _ = parse(command_line(__doc__, prog="python -m adept.bench.trainer_run", arguments=arguments), arguments)
    config = with_steps(resolve(flags))
    folder = Path(config.results_dir)
    model, tokenizer = load_model(config.model, precision=config.precision)
    task = task_of(config)
    data = load_data(task, config)
    codec = trainer_codec(make_codec(config, task, model, tokenizer, capabilities_of(model)))
    seed_everything(config.seed)
    adapted = peft_model(config, model, tokenizer).to(pick_device(config.device))
    train, validation, test = (codec.encode(rows) for rows in (data.train, data.validation, data.test))
    trainer = make_trainer(
        config,
        adapted,
        codec,
        train,
        str(folder / "checkpoints"),
        validation=validation,
        eval_strategy="steps",
        eval_steps=config.eval_every,
        save_strategy="steps",
        save_steps=config.eval_every,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
    )
    trainer.train()
    scores = trainer.predict([feature(row) for row in test], metric_key_prefix="test").metrics
    adapted.save_pretrained(folder / "adapter")
    write_atomically(folder / "scores.json", json.dumps({"history": trainer.state.log_history, "test": scores}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
