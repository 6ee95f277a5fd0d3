"""The engine on the real CPU runtime: the same bits whatever the batch, the chunk size, the threads and the cache."""

from __future__ import annotations

import numpy as np
import pytest

from ternrun.runtime.config import EngineConfig, SamplingParams
from ternrun.runtime.cpu.model import CpuModel
from ternrun.runtime.engine import Engine
from ternrun.runtime.request import Request
from tests.fakes import fake_weights
from tests.runtime.test_engine import Result, run

WAYS: list[dict[str, int]] = [
    {"prefill_chunk": 128, "max_batch": 1},
    {"prefill_chunk": 128, "max_batch": 6, "threads": 1},
    {"prefill_chunk": 7, "max_batch": 3},
    {"prefill_chunk": 64, "max_batch": 6, "kv_tokens": 512, "threads": 3},  # too few blocks for all: preemption
]


def requests() -> list[Request]:
    """Long and short, greedy and drawn, scored and not, with prefixes in common."""
    rng = np.random.default_rng(0)
    shared = rng.integers(0, 320, 150).tolist()
    kinds = [(100, 3, 20, 0, None), (100, 40, 9, 1, None), (64, 1, 30, 1, None), (150, 0, 0, 0, 2), (1, 1, 12, 0, 1)]
    return [
        Request(
            shared[:n] + rng.integers(0, 320, own).tolist(),
            SamplingParams(max_tokens=length, temperature=temperature, seed=n, logprobs=2),
            prompt_logprobs=scored,
        )
        for n, own, length, temperature, scored in kinds
    ]


@pytest.mark.parametrize("arch", ["llama", "bitnet-b1.58", "gemma3"])
def test_results_are_the_same_bits_in_every_way_of_running(arch: str) -> None:
    weights = fake_weights(arch)
    results: list[list[Result]] = []
    for way in WAYS:
        model = CpuModel(weights, EngineConfig(**way))  # type: ignore[arg-type]
        engine = Engine(model)
        results += [run(engine, requests()), run(engine, requests())]  # the second time from the cache
        model.close()
    assert all(result == results[0] for result in results[1:])
    assert [result.cached for result in results[-1]][:3] == [96, 128, 64]
