"""Measures training and evaluation as the released code, or PEFT with transformers' Trainer, runs them and as this
project runs them, side by side.

profiles.py says what is measured; synthetic.py makes rows of the tasks' lengths; released.py imitates the released
code; trainer.py trains by PEFT and the Trainer, trainer_run.py as a program, and whole_runs.py times such programs;
contestants.py opens one style of a model; timing.py and resources.py hold the instruments; measure.py applies them;
memory.py counts the memory of a training step without running it; report.py makes the tables and the projection.
"""

from adept.bench.adapters import measure_adapters
from adept.bench.measure import measure_inference, measure_model
from adept.bench.memory import count_models_memory
from adept.bench.report import performance_markdown, save_performance
from adept.bench.whole_runs import measure_whole_runs

__all__ = [
    "count_models_memory",
    "measure_adapters",
    "measure_inference",
    "measure_model",
    "measure_whole_runs",
    "performance_markdown",
    "save_performance",
]
