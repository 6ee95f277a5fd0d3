"""One set of ternary weights in every encoding, on every instruction set, in any number of threads: the same logits."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from ternrun.loader.quants.table import encode_trits, trits
from ternrun.runtime.encodings import ENCODINGS
from ternrun.runtime.weights import Tensor, Weights
from tests.fakes import fake_weights
from tests.runtime.cpu.harness import ISAS, TERNARY, machine
from tests.runtime.cpu.models import CLEAR, clear_sequence, difference, distances, loaded, logits_of

SHAPES = ("bitnet-b1.58", "llama", "qwen3")
IDS = np.random.default_rng(1).integers(0, 320, 24).tolist()
LENGTH = 16


@cache
def weights_of(arch: str, encoding: str = "TQ2_0") -> Weights:
    """The seeded fake model of that shape: two layers of 256, scales that fp16 holds."""
    return fake_weights(arch, encoding, seed=3)


@cache
def reference_of(arch: str) -> tuple[list[int], NDArray[np.float32]]:
    """A sequence without ties (see `clear_sequence`), and its logits by the reference."""
    return clear_sequence(weights_of(arch), LENGTH)


def recoded(weights: Weights, encoding: str) -> Weights:
    """The same trits and scales in another encoding."""
    tensors = dict(weights.tensors)
    for name, tensor in tensors.items():
        if ENCODINGS[tensor.type].kind == "ternary":
            w, scales = trits(tensor.type, tensor.data, tensor.shape)
            data = encode_trits(encoding, w, scales[:, :1])
            tensors[name] = Tensor(name, encoding, tensor.shape, data, tensor.scale)
    return Weights(weights.config, tensors)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("arch", SHAPES)
def test_logits_are_the_same_bits_in_every_encoding(arch: str, isa: str) -> None:
    machine(isa)
    with loaded(weights_of(arch), isa) as model:
        wanted = logits_of(model, IDS)
    assert np.ptp(wanted) > 1
    for encoding in TERNARY:
        if encoding != "Q1_0":
            with loaded(weights_of(arch, encoding), isa) as model:
                np.testing.assert_array_equal(logits_of(model, IDS), wanted, encoding)


@pytest.mark.parametrize("isa", ISAS)
def test_weights_without_zeros(isa: str) -> None:
    """Q1_0 holds -1 and 1 only: what its model says, TQ2_0 says of the same weights."""
    weights = weights_of("qwen3", "Q1_0")
    results = []
    for version in (weights, recoded(weights, "TQ2_0"), recoded(weights, "I2_S")):
        with loaded(version, isa) as model:
            results.append(logits_of(model, IDS))
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kv", ["f16", "f32"])
def test_logits_are_the_same_bits_in_any_threads_and_steps(isa: str, kv: str) -> None:
    results = []
    for threads in (1, 2, 3):
        with loaded(weights_of("bitnet-b1.58"), isa, threads=threads, kv_type=kv) as model:
            results += [logits_of(model, IDS, chunks) for chunks in ((), (1,) * 24, (3, 5, 1, 7, 2), (23,))]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("arch", SHAPES)
def test_logits_agree_with_the_reference(arch: str, isa: str) -> None:
    ids, wanted = reference_of(arch)
    with loaded(weights_of(arch), isa) as model:
        found = logits_of(model, ids)
    assert len(found) == LENGTH
    assert difference(found, wanted) <= 1e-4


@pytest.mark.parametrize("arch", SHAPES)
def test_logits_agree_between_instruction_sets(arch: str) -> None:
    ids, _ = reference_of(arch)
    results = []
    for isa in ISAS:
        with loaded(weights_of(arch), isa) as model:
            results.append(logits_of(model, ids))
    for result in results[1:]:
        assert difference(result, results[0]) <= 1e-5


def test_ties_are_why_sequences_are_drawn() -> None:
    """A check of `clear_sequence` itself: plain random ids do come near ties, the drawn ones do not."""
    ids, logits = reference_of("llama")
    again, nearest = distances(weights_of("llama"), ids)
    assert nearest.min() >= CLEAR
    np.testing.assert_array_equal(again, logits)
    assert distances(weights_of("llama"), IDS)[1].min() < CLEAR
