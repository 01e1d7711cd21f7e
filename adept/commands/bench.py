"""Times training and evaluation as the released code runs them and as this project runs them, in turns.

python -m adept bench                                                  T5-small's shape and SmolLM2-135M on the CPU
python -m adept bench --device cuda --models t5-base t5-3b --style released ours bf16 compiled --out results/performance
python -m adept bench --only adapters                                  times 16 adapters in one batch and one by one
python -m adept bench --only memory                                    counts what a step of the paper's models needs
python -m adept bench --style trainer ours --method pt lora --steps 200      beside PEFT and transformers' Trainer

Models have their true shape and random weights. Sources have the lengths of the tasks' real rows under T5's tokenizer.
In each repeat every style does the same work once; reported ratios are medians over the repeats. A step has 32 rows
(the paper: 16 x 2 on large tasks). --out NAME updates NAME.json and the tables in NAME.md.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from adept.base.console import print_result, print_status
from adept.base.errors import UserError, nearest
from adept.bench import (
    count_models_memory,
    measure_adapters,
    measure_inference,
    measure_model,
    measure_whole_runs,
    performance_markdown,
    save_performance,
)
from adept.bench.memory import COUNTED_MODELS
from adept.bench.profiles import PROFILES, STYLES
from adept.bench.report import describe_machine
from adept.bench.timing import CLOCKS
from adept.config.command_line import OneLineParser
from adept.methods import METHODS
from adept.models.families import BUNDLED, SHAPES
from adept.training.session import pick_device

if TYPE_CHECKING:
    import torch

MODELS = [*SHAPES, BUNDLED]
PARTS = ("step", "eval", "cycle", "inference", "adapters", "memory")
TRAINER_PARTS = ("step", "run")
"""What is measured beside transformers' Trainer: training steps, and whole runs of the bundled model."""


def make_parser() -> OneLineParser:
    """The command line of `bench`."""
    parser = OneLineParser(
        prog="python -m adept bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 [cpu]")
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL",
        help=f"of {', '.join(MODELS)} [cpu: t5-small and smollm2-135m; else t5-base]",
    )
    parser.add_argument(
        "--profiles",
        nargs="+",
        metavar="PROFILE",
        help=f"of {', '.join(PROFILES)} [cpu: rte sst2 boolq; else all; smollm2-135m: movie_reviews]",
    )
    parser.add_argument(
        "--style",
        nargs="+",
        default=["released", "ours"],
        help=f"of {', '.join(STYLES)}; ratios are to the first [released ours]",
    )
    parser.add_argument(
        "--method", nargs="+", default=["adept"], help=f"of {', '.join(METHODS)}; trainer: of pt, lora [adept]"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="PART",
        help=f"of {', '.join(PARTS)} [all]; with --style trainer of {', '.join(TRAINER_PARTS)}",
    )
    parser.add_argument("--steps", type=int, default=200, help="of a whole run, which evaluates twice [200]")
    parser.add_argument("--eval_rows", type=int, default=200, help="of an evaluation of a whole run [200]")
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="processor: on a machine with other programs [wall]"
    )
    parser.add_argument("--repeats", type=int, default=3, help="the number of repeats, whose median is reported [3]")
    parser.add_argument("--out", metavar="NAME", help="update NAME.json and NAME.md")
    parser.add_argument("--entry", metavar="TEXT", help="of NAME.json and NAME.md [the kind of device]")
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options, with the defaults of the device. Raises UserError for an unknown name or a number out of range."""
    options = make_parser().parse_args(arguments)
    on_cpu = options.device == "cpu"
    synthetic = [name for name, profile in PROFILES.items() if profile.deciles]
    options.models = options.models or (["t5-small", BUNDLED] if on_cpu else ["t5-base"])
    options.profiles = options.profiles or (["rte", "sst2", "boolq"] if on_cpu else synthetic)
    beside_trainer = any(STYLES[style].trainer for style in options.style if style in STYLES)
    parts = TRAINER_PARTS if beside_trainer else PARTS
    options.only = options.only or list(parts)
    for words, known in (
        (options.models, MODELS),
        (options.method, METHODS),
        (options.profiles, PROFILES),
        (options.style, STYLES),
        (options.only, parts),
    ):
        for word in words:
            if word not in known:
                raise UserError(f"unknown name '{word}'; {nearest(word, known)}")
    for name in ("repeats", "steps", "eval_rows"):
        if (value := getattr(options, name)) < 1:
            raise UserError(f"--{name} must be >= 1, not {value}")
    if beside_trainer and not on_cpu and "run" in options.only:
        raise UserError("whole runs are timed on a CPU: add --only step, or leave --device out")
    return options


def measurements(options: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, str, list[dict]]]:
    """Measures what the options name. Yields (what was measured, the part of the result that it belongs to, its rows)
    as soon as it is measured.
    """
    parts = set(options.only)
    for name, task in COUNTED_MODELS if "memory" in parts else []:
        yield f"the memory of {name}, {task}", "memory", list(count_models_memory(name, task))
    for name in options.models:
        profiles = options.profiles if name != BUNDLED else ["movie_reviews"]
        for profile, method in itertools.product(profiles if parts & {"step", "eval", "cycle"} else [], options.method):
            rows = measure_model(name, profile, options.style, parts, options.repeats, device, method, options.clock)
            yield f"{name}, {profile}, {method}", "rows", list(rows)
        for method in options.method if "run" in parts and name == BUNDLED else []:
            rows = measure_whole_runs(
                method, options.steps, options.repeats, options.clock, eval_rows=options.eval_rows
            )
            yield f"whole runs of {name}, {method}", "runs", list(rows)
        if "inference" in parts and name != BUNDLED:
            yield f"inference with {name}", "inference", list(measure_inference(name, "sst2", options.repeats, device))
        if "adapters" in parts:
            yield f"adapters on {name}", "adapters", list(measure_adapters(name, options.repeats, device))


def measure(options: argparse.Namespace) -> dict:
    """Measures what the options name, and reports each part on stderr. With an --out, each is saved at once."""
    device = pick_device(options.device)
    result: dict = {"machine": describe_machine(device)}
    result |= {part: [] for part in ("rows", "runs", "inference", "adapters", "memory")}
    for what, part, rows in measurements(options, device):
        result[part] += rows
        print_status(f"measured {what}")
        if options.out:
            save_performance(options.out, options.entry or device.type, result)
    return result


def main(arguments: list[str]) -> int:
    """Measures and prints what the command line asks for."""
    print_result(performance_markdown(measure(parse(arguments))))
    return 0
