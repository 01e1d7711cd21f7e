"""Counts what the reliability tests survived, measures what a long run costs, and writes results/reliability.md.

python tests/reliability.py [--kills 25] [--fuzz_seconds 600]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from adept.base.atomic_files import write_atomically  # noqa: E402
from adept.runs.provenance import git_state  # noqa: E402

GROUPS = {
    "mistakes in flags, YAML, data, adapters and records": ("tests/test_bad_input.py",),
    "other people's files and secrets": ("tests/test_security.py",),
    "programs in the sandbox, right, wrong and hostile": (
        "tests/metrics/test_sandbox.py",
        "tests/metrics/test_sandbox_attacks.py",
    ),
    "full disks, folders that cannot be written to, too little memory": ("tests/training/test_trouble.py",),
    "runs killed and resumed bit for bit, checkpoints that must be refused": ("tests/training/test_resume.py",),
    "claims of living and dead processes": ("tests/runs/test_claims.py",),
    "golden training steps, one for each method on two families": ("tests/training/test_golden.py",),
}


def pytest(*arguments: str) -> str:
    """What pytest prints. Exits with its output where a test fails: a failure is no figure."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stdout[-3000:])
    return done.stdout


def passed(output: str) -> int:
    return int(re.search(r"(\d+) passed", output).group(1))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--fuzz_seconds", type=float, default=600)
    options = parser.parse_args(arguments)
    chaos = subprocess.run(
        [sys.executable, "tests/chaos.py", "--kills", str(options.kills)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    survived = json.loads(chaos.stdout.splitlines()[-1])
    fuzzed = re.findall(r"^(.+): ([\d,]+) files, ([\d,]+) read, ([\d,]+) refused$", pytest(
        "tests/test_fuzz.py", "-s", "--fuzz_seconds", str(options.fuzz_seconds)), re.MULTILINE)  # fmt: skip
    costs = re.findall(
        r"^measured: (.+): (.+); allowed: (.+)$", pytest("tests/training/test_long_runs.py", "-s"), re.MULTILINE
    )
    lines = [
        "# Reliability", "",
        f"Made by `python tests/reliability.py --kills {options.kills} --fuzz_seconds {options.fuzz_seconds:g}` "
        f"at commit {git_state()['git'][:12]}; the test suite runs a short form.", "",
        "| what | tried | lost |", "|---|---|---|",
        "| processes of sweeps killed with SIGKILL, then completed and compared with an undisturbed sweep "
        f"| {options.kills} | nothing |",
        "| runs of two sweeps started at once, each begun once "
        f"| {survived['two sweeps at once']['begun']} | nothing |",
        *(f"| {what} | {passed(pytest(*files))} | nothing |" for what, files in GROUPS.items()), "",
        "| reader, fuzzed | files | read | refused in one line | other errors, hangs |", "|---|---|---|---|---|",
        *(f"| {name} | {files} | {read} | {refused} | 0 |" for name, files, read, refused in fuzzed), "",
        "| cost, on one CPU thread | measured | allowed |", "|---|---|---|",
        *(f"| {what} | {figure} | {limit} |" for what, figure, limit in costs), "",
        "The kills, as they came: " + "; ".join(f"{name}: {value}" for name, value in survived.items()) + ".",
    ]  # fmt: skip
    write_atomically(ROOT / "results" / "reliability.md", "\n".join(lines) + "\n")
    print("results/reliability.md")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
