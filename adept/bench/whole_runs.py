"""Times whole runs, from the command to the record on disk: ours beside PEFT and transformers' Trainer, in turns."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping

import torch

from adept.base.errors import UserError
from adept.base.paths import ROOT
from adept.bench.timing import CLOCKS, speedup, time_in_turns
from adept.models.families import BUNDLED

EVALUATIONS = 2
"""Of a run, on the validation rows; the test rows are evaluated once more at its end."""

PROGRAMS = {"trainer": ("-m", "adept.bench.trainer_run"), "ours": ("-m", "adept", "train")}
"""Style -> the arguments of the Python that carries out a run. Both take the flags of train.py."""

METHOD_FLAGS: Mapping[str, Mapping[str, object]] = {"pt": {"prompt_len": 24}, "lora": {"rank": 16}}


def run_flags(method: str, steps: int, **changes: object) -> dict[str, object]:
    """The flags of a run of the bundled model on movie reviews, which need no hub."""
    return {
        "task": "movie_reviews", "model": BUNDLED, "method": method, "scoring": "likelihood", "precision": "fp32",
        "max_source_len": 96, "batch_size": 16, "steps": steps, "eval_every": max(1, steps // EVALUATIONS),
        "eval_rows": 200, "eval_batch_size": 32, "device": "cpu", **METHOD_FLAGS.get(method, {}), **changes,
    }  # fmt: skip


def measure_whole_runs(method: str, steps: int, repeats: int, clock: str = "wall", **changes: object) -> list[dict]:
    """A row of the result for each style: the seconds of whole runs, and how many times faster it is than the first.

    clock: a name of CLOCKS. changes: flags in place of those of run_flags(). Raises UserError for a run that fails,
    with the last line that it printed.
    """
    flags = run_flags(method, steps, **changes)
    works = {style: lambda style=style: carry_out(style, flags) for style in PROGRAMS}
    times = time_in_turns(works, repeats, torch.device("cpu"), CLOCKS[clock])
    first = next(iter(PROGRAMS))
    return [
        {
            "model": flags["model"],
            "profile": flags["task"],
            "method": method,
            "style": style,
            "first": first,
            "steps": steps,
            "evaluated_rows": flags["eval_rows"],
            "repeats": repeats,
            "clock": clock,
            "run": {"seconds": statistics.median(seconds), "times_first": speedup(times[first], seconds)},
        }
        for style, seconds in times.items()
    ]


def carry_out(style: str, flags: Mapping[str, object]) -> None:
    """One run in a process and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, *PROGRAMS[style], *words, "--results_dir", folder]
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    if done.returncode:
        said = (done.stderr.strip() or "nothing was printed").splitlines()[-1]
        raise UserError(f"a run of the style {style} failed: {said:.200}")
