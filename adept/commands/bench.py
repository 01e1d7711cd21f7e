"""Times training and evaluation as the released code runs them and as this project runs them, in turns.

python -m adept bench                                                  T5-small's shape and SmolLM2-135M on the CPU
python -m adept bench --device cuda --models t5-base t5-3b --style released ours bf16 compiled --out results/performance
python -m adept bench --only adapters                                  times 16 adapters in one batch and one by one
python -m adept bench --only memory                                    counts what a step of the paper's models needs

Models have their true shape and random weights. Sources have the lengths of the tasks' real rows under T5's tokenizer.
In each repeat every style does the same work once; reported ratios are medians over the repeats. A step has 32 rows
(the paper: 16 x 2 on large tasks). --out NAME updates NAME.json and the tables in NAME.md.
"""

from __future__ import annotations

import argparse

from adept.base.console import print_result, print_status
from adept.base.errors import UserError, nearest
from adept.bench import (
    count_models_memory,
    measure_adapters,
    measure_inference,
    measure_model,
    performance_markdown,
    save_performance,
)
from adept.bench.memory import COUNTED_MODELS
from adept.bench.profiles import PROFILES, STYLES
from adept.bench.report import describe_machine
from adept.config.command_line import OneLineParser
from adept.models.families import BUNDLED, SHAPES
from adept.training.session import pick_device

MODELS = [*SHAPES, BUNDLED]
PARTS = ("step", "eval", "cycle", "inference", "adapters", "memory")


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
    parser.add_argument("--only", nargs="+", metavar="PART", default=list(PARTS), help=f"of {', '.join(PARTS)} [all]")
    parser.add_argument("--repeats", type=int, default=3, help="the number of repeats, whose median is reported [3]")
    parser.add_argument("--out", metavar="NAME", help="update NAME.json and NAME.md")
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options, with the defaults of the device. Raises UserError for an unknown name or a number out of range."""
    options = make_parser().parse_args(arguments)
    on_cpu = options.device == "cpu"
    synthetic = [name for name, profile in PROFILES.items() if profile.deciles]
    options.models = options.models or (["t5-small", BUNDLED] if on_cpu else ["t5-base"])
    options.profiles = options.profiles or (["rte", "sst2", "boolq"] if on_cpu else synthetic)
    for words, known in (
        (options.models, MODELS),
        (options.profiles, PROFILES),
        (options.style, STYLES),
        (options.only, PARTS),
    ):
        for word in words:
            if word not in known:
                raise UserError(f"unknown name '{word}'; {nearest(word, known)}")
    if options.repeats < 1:
        raise UserError(f"--repeats must be >= 1, not {options.repeats}")
    return options


def measure(options: argparse.Namespace) -> dict:
    """Measures what the options name, reports progress on stderr, and saves after each model if there is an --out."""
    device, parts = pick_device(options.device), set(options.only)
    result: dict = {"machine": describe_machine(device), "rows": [], "inference": [], "adapters": [], "memory": []}
    for name, task in COUNTED_MODELS if "memory" in parts else []:
        result["memory"] += count_models_memory(name, task)
        print_status(f"counted {name}, {task}")
    for name in options.models:
        profiles = options.profiles if name != BUNDLED else ["movie_reviews"]
        for profile in profiles if parts & {"step", "eval", "cycle"} else []:
            result["rows"] += measure_model(name, profile, options.style, parts, options.repeats, device)
            print_status(f"measured {name}, {profile}")
        if "inference" in parts and name != BUNDLED:
            result["inference"] += measure_inference(name, "sst2", options.repeats, device)
        if "adapters" in parts:
            result["adapters"] += measure_adapters(name, options.repeats, device)
            print_status(f"measured adapters on {name}")
        if options.out:
            save_performance(options.out, device.type, result)
    return result


def main(arguments: list[str]) -> int:
    """Measures and prints what the command line asks for."""
    print_result(performance_markdown(measure(parse(arguments))))
    return 0
