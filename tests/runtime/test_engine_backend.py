"""The engine on a real backend: the same bits for every batch, chunk size, number of threads and cache state."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from ternrun.runtime.backend.protocol import Model
from ternrun.runtime.backend.registry import select_backend
from ternrun.runtime.config import EngineConfig, SamplingParams
from ternrun.runtime.engine.engine import Engine
from ternrun.runtime.engine.request import Request
from ternrun.runtime.ngram_proposer import NgramProposer
from ternrun.runtime.weights import Weights
from tests.fakes import fake_weights
from tests.runtime.test_engine import Result, run

WAYS: list[dict[str, int]] = [
    {"prefill_chunk": 128, "max_batch": 1},
    {"prefill_chunk": 128, "max_batch": 6, "threads": 1},
    {"prefill_chunk": 7, "max_batch": 3},
    {"prefill_chunk": 64, "max_batch": 6, "kv_tokens": 512, "threads": 3},  # too few blocks for all: preemption
]


def loaded(weights: Weights, **options: Any) -> Model:
    return select_backend("auto")[0].load(weights, EngineConfig(**options))


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


def test_samplers_draw_the_same_tokens_in_every_way_of_running() -> None:
    weights = fake_weights("llama")
    kinds: list[dict[str, Any]] = [
        {"xtc_probability": 0.5, "dry_multiplier": 2.0, "top_n_sigma": 2.0},
        {"mirostat": 2, "mirostat_tau": 3.0},
        {"mirostat": 1, "mirostat_tau": 3.0, "logprobs": 3, "sampled_logprobs": True},
        {"samplers": ("temperature", "typ_p", "dry"), "dynatemp_range": 0.5, "typical_p": 0.9, "min_tokens": 9},
        {"temperature": 0.0, "dry_multiplier": 1.0, "dry_allowed_length": 1},
    ]
    common = {"max_tokens": 30, "temperature": 0.9, "seed": 5}
    asked = [Request([7, 8, 9] * 40, SamplingParams(**{**common, **kind})) for kind in kinds]
    results: list[list[Result]] = []
    for way in WAYS:
        model = loaded(weights, **way)
        results += [run(Engine(model, drafter=drafter), asked) for drafter in (None, partial(NgramProposer, 3))]
        model.close()
    assert all(result == results[0] for result in results[1:])
    assert len({tuple(result.ids) for result in results[0]}) == len(kinds)


@pytest.mark.parametrize("arch", ["llama", "bitnet-b1.58", "gemma3"])
def test_results_are_the_same_bits_in_every_way_of_running(arch: str) -> None:
    weights = fake_weights(arch)
    results: list[list[Result]] = []
    for way in WAYS:
        model = loaded(weights, **way)
        engine = Engine(model)
        results += [run(engine, requests()), run(engine, requests())]  # the second time from the cache
        model.close()
    assert all(result == results[0] for result in results[1:])
    assert [result.cached for result in results[-1]][:3] == [96, 128, 64]
