"""What a machine refuses costs one line: full disks, read-only folders, vanished caches, too little memory."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from conftest import ROOT

import train
from adept.base.atomic_files import write_atomically
from adept.base.errors import UserError
from adept.runs.layout import record_path, run_folder
from adept.runs.record import read_record
from adept.runs.tracking.mirrors import NoMirror
from adept.runs.tracking.tracker import Tracker
from adept.training import loop
from adept.training.loop import run
from adept.training.memory import report_out_of_memory

PLACES = ("model", "data_dir", "results_dir")


def flags_of(config, **more) -> list[str]:
    """train.py's flags for a config of make_config."""
    given = {
        name: config.get(name)
        for name in ("task", "method", "prompt_len", "steps", "eval_every", "batch_size", *PLACES)
    }
    return [f"--{name}={value}" for name, value in {**given, "max_source_len": 64, "device": "cpu", **more}.items()]


# Disks ----------------------------------------------------------------------------------------------------------------


def namespaces() -> bool:
    """An unprivileged user may mount a small file system of its own here."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


IN_NAMESPACE = """
import json, subprocess, sys
sys.path.insert(0, sys.argv[1])
import train
from pathlib import Path

place, flags = Path(sys.argv[2]), sys.argv[3:]


def mount(options):
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)


def fill(left):
    "Takes all the space there is but `left` pages."
    with open(place / "ballast", "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(file.tell() // 4096 * 4096 - left * 4096)


def attempt(*more):
    code = train.main([*flags, *more])
    runs = place / "runs"
    print(json.dumps([code, sorted(path.name for path in runs.iterdir()) if runs.exists() else []]), flush=True)
    print("---", file=sys.stderr, flush=True)


mount("size=2m")
attempt("--seed=1")  # there is room
fill(0)
attempt()  # none for the claim: nothing is loaded
fill(10)
attempt("--save_every=1")  # none for the second or third checkpoint
(place / "ballast").unlink()
attempt("--save_every=1")
subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
attempt("--seed=1")
attempt("--seed=2")
"""


@pytest.mark.slow
@pytest.mark.skipif(not namespaces(), reason="no user namespace with mounts here")
def test_a_full_and_a_read_only_file_system(make_config, tmp_path):
    """Real ones: a tmpfs of 2 MB, filled, freed, and mounted read-only."""
    place = tmp_path / "small"
    config = make_config("t5", "pt", steps=6)
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        sys.executable,
        "-c",
        textwrap.dedent(IN_NAMESPACE),
        str(ROOT),
        str(place),
    ]
    done = subprocess.run([*command, *flags_of(config, results_dir=place)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    lines = [part.strip().splitlines()[-1] for part in done.stderr.split("---\n")[:-1]]
    assert "Traceback" not in done.stderr
    codes, listings = zip(*answers, strict=True)
    assert codes == (0, 2, 2, 0, 0, 2)
    first, run_id = record_path("", listings[0][1].removesuffix(".json")), config.run_id
    assert all(first.name in listing for listing in listings)  # finished work stays
    full = (
        "No space left on device; free some space there, or choose another folder with --results_dir, "
        "then the same command goes on"
    )
    assert lines[1] == f"error: cannot write {place / 'runs'}: {full}"
    assert lines[2].startswith(f"error: cannot write {place / 'runs' / run_id / 'checkpoint.safetensors'}: {full}")
    assert f"{run_id} goes on from step" in done.stderr
    assert f"{run_id}.json" in listings[3] and f".{run_id}.lock" not in listings[3]
    assert lines[5] == (
        f"error: cannot write {place / 'runs'}: Read-only file system; "
        "choose a folder that can be written to with --results_dir, then the same command goes on"
    )


def test_a_limit_on_file_sizes(make_config, tmp_path, capsys, monkeypatch):
    """The checkpoint is larger than a file may be, so the run stops there; without the limit it goes on."""
    config = make_config("t5", "pt", save_every=2)
    undisturbed = run(make_config("t5", "pt", results_dir=str(tmp_path / "undisturbed")))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
        assert train.main(flags_of(config, save_every=2, log_every=2)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    path = run_folder(config.results_dir, config.run_id) / "checkpoint.safetensors"
    line = (
        f"error: cannot write {path}: File too large; raise the limit on file sizes (ulimit -f), "
        "then the same command goes on"
    )
    assert capsys.readouterr().err.splitlines()[-1] == line
    assert {item.name for item in path.parent.iterdir()} == {"metrics.jsonl"}
    assert run(config)["test"] == undisturbed["test"]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("adapter.safetensors", errno.ENOSPC), ("adapter.json", errno.EDQUOT), ("predictions.jsonl", errno.EACCES),
        ("record", errno.EROFS), ("record", errno.ENOSPC), ("record", errno.EIO),
    ],
)  # fmt: skip
def test_each_file_of_a_finished_run(make_config, monkeypatch, name, number):
    """A write that fails at the end leaves no half file and no record, and the same command goes on after training."""
    config = make_config("t5", "pt", save_every=4)
    name = f"{config.run_id}.json" if name == "record" else name
    original, refused = os.replace, []

    def replace(source, target):
        if Path(target).name == name and not refused:
            refused.append(target)
            raise OSError(number, os.strerror(number))
        original(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(
        UserError, match=rf"^cannot write .*{name}: {os.strerror(number)}; .*then the same command goes on$"
    ):
        run(config)
    runs = Path(config.results_dir) / "runs"
    assert read_record(config.results_dir, config.run_id) is None
    assert not [path for path in runs.rglob("*") if path.name.startswith(".")]
    monkeypatch.setattr(loop, "train_step", lambda *_: pytest.fail("trained again"))
    assert run(config)["status"] == "completed"
    assert not list(runs.rglob("checkpoint*"))


def test_a_log_that_cannot_be_written(make_config, monkeypatch):
    config = make_config("t5", "pt")
    folder = run_folder(config.results_dir, config.run_id)
    (folder / "metrics.jsonl").mkdir(parents=True)
    monkeypatch.setattr(loop, "train_step", lambda *_: pytest.fail("trained"))
    with pytest.raises(UserError, match=r"metrics.jsonl: Is a directory; choose a folder"):
        run(config)


def test_no_line_of_the_log_is_written_in_part(make_config, tmp_path):
    """The disk takes the first bytes of a line and says nothing: the tracker must report the rest."""
    config = make_config("t5", "pt")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Tracker(config, tmp_path, {}, NoMirror()) as tracker:
        tracker.line(1, {"train/loss": 0.5})
        size = (tmp_path / "metrics.jsonl").stat().st_size
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, before[1]))
            with pytest.raises(UserError, match=r"^cannot write .*metrics.jsonl: File too large; raise the limit"):
                tracker.line(2, {"train/loss": 0.25})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("linked", ["results", "run"])
def test_folders_that_are_links_to_another_disk(make_config, tmp_path, monkeypatch, linked):
    """A killed run in a results folder, or in a run's folder, that is a link goes on there, and the link stays."""
    config = make_config("t5", "pt", save_every=1)
    link = Path(config.results_dir) if linked == "results" else run_folder(config.results_dir, config.run_id)
    (tmp_path / "disk").mkdir()
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "disk")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("adept.training.run.evaluate", lambda *_: sys.exit("killed"))
        run(config)
    assert [*(tmp_path / "disk").rglob("checkpoint.safetensors")]
    undisturbed = run(make_config("t5", "pt", results_dir=str(tmp_path / "undisturbed")))
    assert run(config)["test"] == undisturbed["test"]
    assert (
        link.is_symlink()
        and [*(tmp_path / "disk").rglob("adapter.safetensors")]
        and not [*tmp_path.rglob("results/**/.*.lock")]
    )


def test_a_results_folder_that_is_a_file_is_told_before_anything_is_loaded(make_config, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("adept.training.run.load_data", lambda *_: pytest.fail("loaded"))
    assert train.main(flags_of(make_config("t5", "pt"), results_dir=tmp_path / "file")) == 2
    assert capsys.readouterr().err.startswith(
        f"error: --results_dir {tmp_path / 'file'}: {tmp_path / 'file'} is a file where a folder is needed"
    )


def test_atomic_writing_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    path, previous = tmp_path / "folder" / "file", tmp_path / "folder" / "before"
    write_atomically(path, "first")
    write_atomically(path, b"second", previous=previous)
    assert (path.read_text(), previous.read_text(), path.stat().st_mode & 0o777) == ("second", "first", 0o644)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(UserError, match="Input/output error"):
        write_atomically(path, "third", previous=previous)
    assert {item.name: item.read_text() for item in path.parent.iterdir()} == {"file": "second", "before": "first"}


def test_a_vanished_data_folder_and_model_are_reported(make_config, tmp_path, capsys, data_dir, model_folders):
    """They were there when the run was begun."""
    data, model = tmp_path / "data", tmp_path / "model"
    config = make_config("t5", "pt")
    for gone, more in ((data, {"data_dir": data}), (model, {"model": model})):
        shutil.copytree(data_dir if gone == data else model_folders["t5"], gone)
        shutil.rmtree(gone)
        assert train.main(flags_of(config, **more)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and str(gone) in line


def test_data_that_vanish_while_a_run_is_killed_cost_nothing(make_config, tmp_path, monkeypatch, capsys, data_dir):
    """The same command says so, and goes on when they are back."""
    data = tmp_path / "data"
    shutil.copytree(data_dir, data)
    config = make_config("t5", "pt", data_dir=str(data), save_every=1)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("adept.training.run.evaluate", lambda *_: sys.exit("killed"))
        run(config)
    kept = [path.read_bytes() for path in run_folder(config.results_dir, config.run_id).iterdir()]
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"--data_dir {data} is not a folder"):
        run(config)
    assert kept == [path.read_bytes() for path in run_folder(config.results_dir, config.run_id).iterdir()]
    (tmp_path / "elsewhere").rename(data)
    capsys.readouterr()
    assert run(config)["status"] == "completed"
    assert "goes on from step 1 of 4" in capsys.readouterr().err


# Memory ---------------------------------------------------------------------------------------------------------------

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.78 GiB")
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
)
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def short_of_memory(error: BaseException, call: int = 1):
    calls = []

    def fail(*_, **__):
        calls.append(1)
        if len(calls) >= call:
            raise error

    return fail


@pytest.mark.parametrize("error", [CUDA, CPU, CUBLAS, MemoryError()], ids=["cuda", "cpu", "cublas", "python"])
def test_training_out_of_memory_names_smaller_batches(make_config, monkeypatch, error):
    for fields, advice in (
        (
            {"batch_size": 32},
            r"--batch_size 16 --grad_accum 2 \(now 32 and 1\) takes as many examples a step; --precision bf16",
        ),
        ({"batch_size": 9, "grad_accum": 2}, r"--batch_size 3 --grad_accum 6 \(now 9 and 2\)"),
        ({"batch_size": 1, "precision": "bf16"}, "--checkpoint_activations keeps"),
        ({"batch_size": 1, "precision": "bf16", "checkpoint_activations": True}, r"--max_source_len \(now 64\)"),
    ):
        with (
            monkeypatch.context() as patch,
            pytest.raises(UserError, match=f"^out of memory while training: {advice}") as error_info,
        ):
            patch.setattr("adept.training.stack.Stack.losses", short_of_memory(error))
            run(make_config("t5", "pt", **fields))
        assert "\n" not in str(error_info.value)


def test_memory_that_is_really_not_there(make_config, monkeypatch):
    """torch's own error for 2^50 bytes on the CPU."""
    monkeypatch.setattr(loop, "train_step", lambda *_: torch.empty(2**50, dtype=torch.uint8))
    with pytest.raises(
        UserError, match=r"^out of memory while training: --batch_size 2 --grad_accum 2 \(now 4 and 1\)"
    ):
        run(make_config("t5", "pt"))


def test_evaluation_out_of_memory_loses_no_step(make_config, monkeypatch, capsys):
    config = make_config("t5", "pt", eval_every=3)
    line = (
        "out of memory while evaluating: --eval_batch_size 32 (now 64) needs less, and with it the same run goes on "
        "from step 3 of 4, which is saved"
    )
    with monkeypatch.context() as patch:
        patch.setattr("adept.training.evaluation.generate", short_of_memory(CUDA))
        assert train.main(flags_of(config)) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {line}"
    trained = []
    original = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda *rest: trained.append(1) or original(*rest))
    assert train.main(flags_of(config, eval_batch_size=32)) == 0
    assert len(trained) == 1


def test_a_model_that_does_not_fit(make_config, monkeypatch):
    monkeypatch.setattr("adept.training.session.load_model", short_of_memory(CPU))
    with pytest.raises(UserError, match=r"^out of memory while loading .*tiny-t5: --precision bf16 halves the model"):
        run(make_config("t5", "pt"))


def test_other_errors_are_no_lack_of_memory():
    with pytest.raises(RuntimeError, match=r"^shapes"), report_out_of_memory("while training"):
        raise RuntimeError("shapes do not fit")
