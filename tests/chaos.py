"""Kills the processes of a sweep at random moments and asks whether anything was lost.

python tests/chaos.py [--kills 25] [--seed 0]

A process dies by SIGKILL: by the clock, or (so that short moments are met too) before or after a certain call of a
function that writes, evaluates or trains, or with a file half written. It is started again until the sweep is done; a
sweep that gets done too early is followed by another. Then every record, adapter, prediction and log must equal those
of an undisturbed sweep, time apart, and nothing else may lie about. The processes are forks of this one, which has
imported everything and computed nothing.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from time import perf_counter as clock

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from adept.base.atomic_files import TEMPORARY  # noqa: E402
from adept.commands.main import main as adept  # noqa: E402
from adept.data.fixtures import write_rows  # noqa: E402
from adept.models.tiny import make_model, make_tokenizer  # noqa: E402
from adept.runs.record import read_record  # noqa: E402
from adept.runs.tracking.tracker import Tracker  # noqa: E402
from adept.training import loop  # noqa: E402
from adept.training import run as run_module  # noqa: E402
from adept.training.resume import Checkpoints  # noqa: E402

TABLE = """
title: Small runs
fields: {{task: rte, model: {model}, data_dir: {data}, device: cpu, batch_size: 4, max_source_len: 64,
  scoring: likelihood, steps: 10, eval_every: 4, save_every: 3, log_every: 2, model_dropout: 0.1, warmup_steps: 1}}
grid:
  - {{method: pt, prompt_len: 9, grad_accum: 2}}
  - {{method: dept, prompt_len: 5, rank: 3, offset_len: 40, offset_lr: 0.01, group_by_length: false}}
  - {{method: adept, prompt_len: 5, bottleneck: 3, offset_lr: 0.01, bottleneck_dropout: 0.1}}
  - {{method: lora, rank: 2, lora_dropout: 0.1, lr: 0.01, few_shot: 9}}
"""

MOMENTS = [  # taken in turn: owner and function, and up to which of its calls one is chosen; None: the clock
    (os, "fsync", 6),
    (run_module, "evaluate", 6),
    (run_module, "write_record", 2),
    None,
    (os, "replace", 20),
    (loop, "train_step", 20),
    (Checkpoints, "remove", 2),
    None,
    (Tracker, "line", 20),
    (Checkpoints, "load", 2),
    (Checkpoints, "save", 6),
    (Path, "unlink", 4),
]


# Processes ------------------------------------------------------------------------------------------------------------


def fork(log: Path, work: Callable[..., int], *arguments) -> int:
    """The id of a child process that does work(*arguments) and exits with its value; what it says goes to `log`."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    code = 70
    try:
        with open(log, "a", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        code = work(*arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    """The exit code of a child, -9 after SIGKILL."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_by_the_clock(pid: int, seconds: float) -> int:
    """The exit code of a child that has so long to live."""
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)  # a child that ended is not waited for yet, so its id is still its own
    return ended(pid)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(owner: object, name: str, call: int, way: str, work: Callable[..., int], *arguments) -> int:
    """work(*arguments), in which the process dies in the `call`-th call of owner.name: before it or after it. Syncs are
    those of files being written, which are cut in half before."""
    original, calls = getattr(owner, name), itertools.count(1)

    def replacement(*given, **keywords):
        if name == "fsync" and not os.readlink(f"/proc/self/fd/{given[0]}").endswith(TEMPORARY):
            return original(*given)
        now = next(calls) == call
        if now and name == "fsync":
            os.ftruncate(given[0], os.fstat(given[0]).st_size // 2)
        if now and way == "before":
            die()
        result = original(*given, **keywords)
        if now:
            die()
        return result

    setattr(owner, name, replacement)
    return work(*arguments)


# Sweeps ---------------------------------------------------------------------------------------------------------------


def make_table(folder: Path) -> Path:
    """A table of four small runs with a tiny random model on fixture rows."""
    make_model("t5").save_pretrained(folder / "tiny-t5")
    make_tokenizer(folder / "tiny-t5", appends_eos=True)
    data = folder / "data"
    write_rows(data, ["rte"], 24)
    table = folder / "small.yaml"
    table.write_text(TABLE.format(model=folder / "tiny-t5", data=data), encoding="utf-8")
    return table


def command(table: Path, results_dir: Path) -> int:
    """What `python -m adept sweep` does. Each run that is begun is noted in RESULTS_DIR/begun."""
    original = run_module.Run.prepare

    def prepare(run, *arguments, **named):
        with open(results_dir / "begun", "a", encoding="utf-8") as file:
            file.write(f"{run.config.run_id}\n")
        original(run, *arguments, **named)

    run_module.Run.prepare = prepare
    results_dir.mkdir(parents=True, exist_ok=True)
    return adept(["sweep", str(table), "--results_dir", str(results_dir)])


def outcome(results_dir: Path) -> dict[str, object]:
    """Everything below RESULTS_DIR/runs by its path: bytes, and JSON without what time and place decide."""
    found: dict[str, object] = {}
    for path in sorted((results_dir / "runs").rglob("*")):
        if path.is_dir():
            continue
        content: object = path.read_bytes()
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            del content["config"]["results_dir"]
            for name in ("timing", "peak_memory_bytes"):
                content.pop(name, None)
            for entry in content.get("history", []):
                del entry["seconds"]
            content.get("provenance", {}).pop("resumed", None)
        found[str(path.relative_to(results_dir))] = content
    return found


def same(undisturbed: dict[str, object], other: dict[str, object]) -> None:
    """Raises AssertionError naming the files."""
    wrong = sorted(name for name in undisturbed.keys() | other.keys() if undisturbed.get(name) != other.get(name))
    assert not wrong, f"not as in the undisturbed sweep: {', '.join(wrong)}"


def whole_records(results_dir: Path) -> None:
    """Whatever is there under a record's name can be read as one."""
    for path in (results_dir / "runs").glob("[!.]*.json"):
        assert read_record(str(results_dir), path.stem) is not None


def chaos(folder: Path, kills: int = 25, seed: int = 0) -> dict:
    """Kills `kills` processes. Returns {"kills", "by", "sweeps", "resumed", "seconds"}. Raises AssertionError when
    something is lost.

    resumed: how often one of the runs went on from a checkpoint. To be called in a process that has not computed with
    torch.
    """
    chance, begun = random.Random(seed), clock()
    log, table, place = folder / "log", make_table(folder), folder / "sweep0"
    started = clock()
    assert ended(fork(log, command, table, folder / "undisturbed")) == 0, log.read_text()
    length = clock() - started
    undisturbed = outcome(folder / "undisturbed")

    by: collections.Counter = collections.Counter()
    sweeps, moments, code = 0, itertools.cycle(MOMENTS), -signal.SIGKILL
    while by.total() < kills or code != 0:
        moment = next(moments)
        if by.total() == kills:
            code = ended(fork(log, command, table, place))
        elif moment is None:
            code = killed_by_the_clock(fork(log, command, table, place), chance.uniform(0, length))
        else:
            owner, name, most = moment
            call, way = chance.randint(1, most), chance.choice(["before", "after"])
            code = ended(fork(log, dying, owner, name, call, way, command, table, place))
        assert code in (0, -signal.SIGKILL), log.read_text()
        whole_records(place)
        if code == 0:
            same(undisturbed, outcome(place))
            sweeps += 1
            place = folder / f"sweep{sweeps}"
        else:
            by[moment[1] if moment else "clock"] += 1
    resumed = log.read_text().count("goes on from step")
    return {
        "kills": by.total(),
        "by": dict(sorted(by.items())),
        "sweeps": sweeps,
        "resumed": resumed,
        "seconds": round(clock() - begun),
    }


def twice(folder: Path) -> dict:
    """Two sweeps over one folder at once. Returns {"runs", "begun"}. Raises AssertionError unless each run was begun
    once.
    """
    log, table, place = folder / "log2", folder / "small.yaml", folder / "twice"
    both = [fork(log, command, table, place) for _ in range(2)]
    assert [ended(pid) for pid in both] == [0, 0], log.read_text()
    same(outcome(folder / "undisturbed"), outcome(place))
    begun = (place / "begun").read_text().split()
    assert len(begun) == len(set(begun)), f"begun more than once: {begun}"
    return {"runs": len(set(begun)), "begun": len(begun)}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        report = chaos(Path(folder), options.kills, options.seed)
        print(json.dumps({**report, "two sweeps at once": twice(Path(folder))}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
