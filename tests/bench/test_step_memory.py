"""The count of a step's memory is what torch's allocator hands out, on shapes small enough to run."""

import pytest
from torch.profiler import profile

from adept.bench.memory import StepMemory, count_run, count_step, largest_batch
from adept.bench.synthetic import DigitTokenizer
from adept.commands.main import main
from adept.config.layers import resolve
from adept.data.batches import make_batch
from adept.data.example import Example
from adept.models.loading import patch_attention_and_dropout, random_model
from adept.training.session import open_session_on
from adept.training.stack import Stack

SMALL = {
    "t5-small": {"num_layers": 2, "vocab_size": 2000},
    "codegen-350m": {"n_layer": 2, "n_embd": 256, "n_head": 4, "vocab_size": 2000},
    "llama3-8b": {
        "num_hidden_layers": 2,
        "hidden_size": 256,
        "intermediate_size": 700,
        "num_attention_heads": 8,
        "vocab_size": 2000,
    },
}


def peak_of_allocator(work) -> int:
    """The most bytes that `work` had allocated at once, as torch's allocator reports them."""
    with profile(profile_memory=True) as measured:
        work()
    now = most = 0
    for event in measured.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("checkpointed", [False, True])
def test_counted_peak_is_the_allocators(name, checkpointed):
    config = resolve(
        {"task": "rte", "model": name, "device": "cpu", "max_source_len": 128, "prompt_init_vocab": 100,
         "checkpoint_activations": checkpointed}
    )  # fmt: skip
    model = patch_attention_and_dropout(random_model(name, **SMALL[name]))
    session = open_session_on(config, model, DigitTokenizer())
    rows = [Example("", "", "", (), source_ids=(2,) * length, target_ids=(2,) * 3) for length in (128, 120, 128, 90)]
    batch = make_batch(session.codec, rows)
    session.model.train()
    stack = Stack([session])

    def train() -> None:
        stack.losses([batch.inputs]).sum().backward()
        session.model.zero_grad()

    train()
    measured = peak_of_allocator(train)
    count = count_step(session.model, lambda: stack.losses([batch.inputs]).sum())
    assert count.peak == pytest.approx(measured, rel=1e-3)
    assert 0 < count.saved <= count.peak
    assert count.weights == sum(
        t.numel() * t.element_size() for t in {*session.model.parameters(), *session.model.buffers()}
    )
    assert count.optimizer == 8 * sum(p.numel() for p in session.trainables.values())


def count(rows: int = 4, **fields) -> tuple[StepMemory, int]:
    config = resolve(
        {"task": "rte", "model": "t5-small", "batch_size": rows, "grad_accum": 1, "max_source_len": 64, **fields}
    )
    return count_run(config, DigitTokenizer())


def test_a_step_on_the_meta_device_is_counted_as_on_a_gpu():
    """The dropped bytes: dropout's masks of a byte for floats, attention without its weights."""
    plain, logits = count()
    checkpointed, _ = count(checkpoint_activations=True)
    half, _ = count(precision="bf16")
    assert logits == 4 * 4 * 3 * 32128  # four rows of "0" (two tokens) and EOS
    assert checkpointed.saved < plain.saved / 4 and checkpointed.peak < plain.peak
    assert half.weights < 0.51 * plain.weights and half.peak < plain.peak
    # No attention weights are kept (heads x tokens^2 floats a row and layer), only the bias that masks them.
    longer, _ = count(max_source_len=128)
    assert longer.saved < 2.5 * plain.saved


def test_the_largest_batch_fits_and_one_more_does_not():
    config = resolve({"task": "rte", "model": "t5-small", "grad_accum": 1, "max_source_len": 64})
    room = 10**9
    rows = largest_batch(config, DigitTokenizer(), room)
    assert count(rows)[0].total <= room < count(rows + 1)[0].total
    assert largest_batch(config, DigitTokenizer(), 10**8) == 0


def test_the_table_says_that_it_is_a_count(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("adept.commands.bench.COUNTED_MODELS", (("t5-small", "rte"),))
    monkeypatch.setattr("adept.bench.memory.largest_batch", lambda *_: 7)
    assert main(["bench", "--only", "memory", "--out", str(tmp_path / "performance")]) == 0
    page = (tmp_path / "performance.md").read_text()
    assert "a count, not a measurement" in page and page.count("| t5-small | rte |") == 4
    block = page.split("-->\n")[1].split("<!--")[0]
    assert page.splitlines()[3:] and block == capsys.readouterr().out.rstrip("\n") + "\n"
