"""Kills at random moments lose nothing (tests/chaos.py says how), two sweeps at once do each run once, long runs stay flat."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import transformers
from conftest import ROOT, make_tokenizer

from adept import loop, results


def test_killed_sweeps_and_two_at_once():
    """Six kills; python tests/chaos.py --kills 25 does more."""
    done = subprocess.run([sys.executable, str(ROOT / "tests" / "chaos.py"), "--kills", "6"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["kills"] == 6 and {"fsync", "evaluate", "write"} <= report["by"].keys()
    assert report["resumed"] >= 2 and report["sweeps"] >= 1
    assert report["two sweeps at once"] == {"runs": 4, "begun": 4}


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_2000_steps_are_flat_in_memory_and_time(make_config, monkeypatch, tmp_path):
    """On a model so small that a leak of some kilobytes a step would show. Processor time, since other processes share the machine."""
    config = transformers.LlamaConfig(
        vocab_size=328, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
        max_position_embeddings=64, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "smallest")
    make_tokenizer(tmp_path / "smallest", appends_eos=False)
    memory, seconds, original = [], [], loop.train_step

    def measured(*arguments):
        started = time.thread_time()
        result = original(*arguments)
        seconds.append(time.thread_time() - started)
        memory.append(resident())
        return result

    monkeypatch.setattr(loop, "train_step", measured)
    small = {"prompt_len": 1, "batch_size": 2, "max_source_len": 16, "eval_rows": 2, "scoring": "likelihood"}
    config = make_config("llama", "pt", model=str(tmp_path / "smallest"), steps=2000, eval_every=100, save_every=50, log_every=20, **small)
    record = loop.run(config)
    warm = 500
    print(f"memory {memory[warm] / 2**20:.1f} to {max(memory[warm:]) / 2**20:.1f} MiB")
    # The fastest tenth of each part: what else the machine does only adds, while growth would reach every step.
    before, after = (statistics.quantiles(part, n=10)[0] for part in (seconds[warm : 2 * warm], seconds[-warm:]))
    print(f"step {1e3 * before:.2f}, then {1e3 * after:.2f} ms")
    assert max(memory[warm:]) <= 1.02 * memory[warm]
    assert after <= 1.15 * before
    assert len(record["history"]) == 20
    folder = results.run_folder(config.results_dir, config.run_id)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2000 // 20 + 20 + 1
    assert sum(path.stat().st_size for path in folder.iterdir()) < 50_000
