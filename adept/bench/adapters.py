"""Measures many adapters on one model: one batch whose rows have each its own, beside a batch for each adapter."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import numpy as np
import torch

from adept.bench.contestants import load_base_model, open_style_sessions
from adept.bench.resources import weight_bytes
from adept.bench.timing import speedup, time_in_turns
from adept.data.example import Example
from adept.models.families import BUNDLED
from adept.models.loading import copy_sharing_parameters, patch_attention_and_dropout
from adept.serving.bank import Bank, BankRow

REQUESTS, SOURCE_LEN = 16, 32
"""The number of requests, and the tokens of each source."""

ADAPTERS, NEW_TOKENS = (1, 4, 16), (3, 24)
"""The numbers of adapters that the requests are shared out over, and of tokens that each is answered with."""


def measure_adapters(name: str, repeats: int, device: torch.device) -> Iterator[dict]:
    """Yields one row of the result for each number of new tokens and of adapters."""
    model, tokenizer = load_base_model(name, device)
    profile = "movie_reviews" if name == BUNDLED else "sst2"
    config = open_style_sessions("ours", model, tokenizer, profile, name, str(device))[0].config
    base_bytes = weight_bytes(model)
    for new_tokens in NEW_TOKENS:
        shared = patch_attention_and_dropout(copy_sharing_parameters(model))
        configs = {str(i): config.replace(max_new_tokens=new_tokens, seed=i) for i in range(max(ADAPTERS))}
        bank = Bank.on_model(configs, shared, tokenizer)
        shared.generation_config.eos_token_id = None  # every answer has all its tokens
        for adapters in ADAPTERS:
            rows = make_requests(bank, adapters)
            works = {
                "sequential": lambda bank=bank, rows=rows: ask_in_turn(bank, rows),
                "together": lambda bank=bank, rows=rows: bank.generate(rows),
            }
            works["together"]()  # warm up
            times = time_in_turns(works, repeats, device)
            yield {
                "model": name,
                "adapters": adapters,
                "new_tokens": new_tokens,
                "repeats": repeats,
                "requests": REQUESTS,
                "sequential_seconds": statistics.median(times["sequential"]),
                "together_seconds": statistics.median(times["together"]),
                "times_sequential": speedup(times["sequential"], times["together"]),
                "adapter_bytes": (weight_bytes(shared) - base_bytes) / len(configs),
                "model_bytes": base_bytes,
            }


def make_requests(bank: Bank, adapters: int) -> list[BankRow]:
    """Requests of random ids for the first so many runs of the bank, in turn."""
    generator, names = np.random.default_rng(0), list(bank.numbers)[:adapters]
    rows = []
    for i in range(REQUESTS):
        ids = tuple(generator.integers(1000, 30_000, SOURCE_LEN).tolist())
        rows.append(bank.row(names[i % adapters], Example(str(i), "", "", (), source_ids=ids)))
    return rows


def ask_in_turn(bank: Bank, rows: list[BankRow]) -> None:
    """Answers the requests of one adapter after the other."""
    for run in dict.fromkeys(row.run for row in rows):
        bank.generate([row for row in rows if row.run == run])
