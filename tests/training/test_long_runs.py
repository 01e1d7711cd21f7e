"""Long runs: memory and time of a step stay flat, logs stay bounded, checkpoints are small and take next to no time.

Each measured figure is printed as "measured: what: figure; allowed: limit"; tests/reliability.py puts them into
results/reliability.md.
"""

import statistics
import time
from pathlib import Path

import pytest
import torch
import transformers

from adept.base.options import default_of
from adept.config.run import OPTIONS
from adept.models.tiny import make_tokenizer
from adept.runs.layout import run_folder
from adept.training import loop
from adept.training.loop import run
from adept.training.resume import Checkpoints
from adept.training.signals import Signals


def measured(what: str, figure: str, limit: str) -> None:
    print(f"\nmeasured: {what}: {figure}; allowed: {limit}")


def timed(monkeypatch, owner: object, name: str, seconds: list[float], clock) -> None:
    """Adds what each call of owner.name takes to `seconds`."""
    original = getattr(owner, name)

    def call(*arguments):
        started = clock()
        result = original(*arguments)
        seconds.append(clock() - started)
        return result

    monkeypatch.setattr(owner, name, call)


# Memory and time of a step --------------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
def test_2000_steps_are_flat_in_memory_and_time(make_config, monkeypatch, tmp_path):
    """On a model so small that a leak of some kilobytes a step would show.

    A step's time is measured in units of a fixed piece of work that is done beside it, both in processor time, since
    other processes share the machine and its caches.
    """
    config = transformers.LlamaConfig(
        vocab_size=328, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1,
        bos_token_id=None,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "smallest")
    make_tokenizer(tmp_path / "smallest", appends_eos=False)
    memory, seconds, units, original = [], [], [], Signals.check

    def work():
        tensor = torch.ones(8, requires_grad=True)
        for _ in range(20):
            tensor = (tensor * 2).relu()
        tensor.sum().backward()

    def check(signals, *agreed):  # once a step, and at evaluations
        memory.append(resident())
        started = time.thread_time()
        work()
        units.append(time.thread_time() - started)
        original(signals, *agreed)

    timed(monkeypatch, loop, "train_step", seconds, time.thread_time)
    monkeypatch.setattr(Signals, "check", check)
    small = {"prompt_len": 1, "batch_size": 2, "max_source_len": 16, "eval_rows": 2, "scoring": "likelihood"}
    config = make_config(
        "llama",
        "pt",
        model=str(tmp_path / "smallest"),
        steps=2000,
        eval_every=100,
        save_every=50,
        log_every=20,
        **small,
    )
    record = run(config)
    warm = 500
    growth = max(memory[warm:]) / memory[warm] - 1
    times = [step / unit for step, unit in zip(seconds, units, strict=False)]
    before, after = statistics.median(times[warm : 2 * warm]), statistics.median(times[-warm:])
    folder = run_folder(config.results_dir, config.run_id)
    size = sum(path.stat().st_size for path in folder.iterdir())
    measured("growth of memory from step 500 to 2,000", f"{100 * growth:.2f}% of {memory[warm] / 2**20:.0f} MiB", "2%")
    measured(
        "growth of a step's time, steps 500 to 1,000 against 1,500 to 2,000",
        f"{100 * (after / before - 1):+.1f}%",
        "15%",
    )
    measured("all files of that run, 20 evaluations and 100 lines of losses", f"{size:,} bytes", "50,000 bytes")
    assert growth <= 0.02
    assert after <= 1.15 * before
    assert len(record["history"]) == 20
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2000 // 20 + 20 + 1
    assert size < 50_000


# Checkpoints ----------------------------------------------------------------------------------------------------------


def base_of_t5(folder: Path) -> str:
    """A random model with T5-base's layers and widths, but for its vocabulary: 198 million parameters."""
    config = transformers.T5Config(
        vocab_size=328, d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12, decoder_start_token_id=0,
        pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    make_tokenizer(folder, appends_eos=True)
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fields", "trained"),
    [
        ("SmolLM2-135M", {"model": "smollm2-135m", "method": "pt", "prompt_len": 24}, 13_824),
        ("SmolLM2-135M", {"model": "smollm2-135m", "method": "adept", "prompt_len": 7, "bottleneck": 8}, 13_832),
        ("T5-base's layers", {"method": "pt", "prompt_len": 100}, 76_800),
    ],
    ids=["smollm2-pt", "smollm2-adept", "t5-base-pt"],
)
def test_a_checkpoint_is_small_and_takes_next_to_no_time(make_config, monkeypatch, tmp_path, name, fields, trained):
    """Steps of one row, the shortest there are, against writing a checkpoint to the disk, as often as the defaults do
    that.
    """
    fields = {"model": fields.get("model") or base_of_t5(tmp_path / "base"), **fields}
    config = make_config(
        **fields, steps=4, eval_every=3, save_every=1, batch_size=1, eval_rows=1, scoring="likelihood", warmup_steps=0
    )
    steps, saves, sizes = [], [], []
    timed(monkeypatch, loop, "train_step", steps, time.perf_counter)
    timed(monkeypatch, Checkpoints, "save", saves, time.perf_counter)
    original = Checkpoints.remove
    monkeypatch.setattr(
        Checkpoints,
        "remove",
        lambda checkpoints: sizes.append(checkpoints.newest.stat().st_size) or original(checkpoints),
    )
    assert run(config)["trainable_params"] == trained
    step, save, every = statistics.median(steps), max(saves), default_of(OPTIONS["save_every"])
    share = save / (every * step)
    measured(
        f"checkpoint of {trained:,} trained numbers, {config.method}, {name}", f"{sizes[0]:,} bytes", "2,000,000 bytes"
    )
    saving, training = f"{1e3 * save:.0f} ms every {every:,} steps", f"of one row, {1e3 * step:.0f} ms each"
    figure = f"{100 * share:.4f}% of training ({saving} {training})"
    measured("writing it", figure, "1%")
    assert len(saves) == 4 and sizes[0] < 2e6
    assert share < 0.01
