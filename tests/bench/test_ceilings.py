"""Ceiling kernels do what they are counted for, on every instruction set; the probe measures with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ternrun.bench import ceilings
from ternrun.bench.ceilings import CHAINS, Probe, instructions
from ternrun.runtime.cpu.compile import isa
from ternrun.runtime.cpu.memory import address
from tests.runtime.cpu.harness import ISAS, copy_of, machine

Lanes = NDArray[Any]


def lookup(v: Lanes, other: Lanes) -> Lanes:
    return other[v & 31]


def dot(v: Lanes, other: Lanes) -> Lanes:
    products = v.view(np.uint8).astype(np.int32) * other.view(np.int8).astype(np.int32)
    return (v + products.reshape(-1, 4).sum(1)).astype(np.int32)


def sums_of_bytes(v: Lanes, other: Lanes) -> Lanes:
    products = v.view(np.uint8).astype(np.int32) * other.view(np.int8).astype(np.int32)
    return products.reshape(-1, 2).sum(1).clip(-32768, 32767).astype(np.int16)


def floats(v: Lanes, other: Lanes) -> Lanes:
    return (v.astype(np.float64) * other + other).astype(np.float32)


REFERENCES: dict[str, tuple[Callable[[Lanes, Lanes], Lanes], Any]] = {
    "lookup": (lookup, np.int16), "dot": (dot, np.int32), "bytes": (sums_of_bytes, np.int16),
    "floats": (floats, np.float32),
}  # fmt: skip


@pytest.mark.parametrize("name", ISAS)
def test_chains_do_as_many_operations_as_are_counted(name: str) -> None:
    for entry in instructions(isa.select_isa(name)):
        operation, dtype = REFERENCES[entry]
        rng = np.random.default_rng(1)
        start = rng.uniform(0.1, 0.4, 16) if entry == "floats" else rng.integers(1, 5, 64 // np.dtype(dtype).itemsize)
        wide = {"bytes": 32, "floats": 64 if name == "avx512" else 32}.get(entry, 64)
        cells = copy_of(np.tile(start.astype(dtype), (2, 1)), dtype)
        machine(name).call(f"ceiling.{entry}", rounds=3, cells=address(cells), threads=2)
        other = expected = start.astype(dtype)[: wide // np.dtype(dtype).itemsize]
        for _ in range(3):
            expected = operation(expected, other)
        with np.errstate(over="ignore"):
            expected = (expected * dtype(CHAINS)).astype(dtype)
        for thread in range(2):
            np.testing.assert_allclose(cells[thread, : len(expected)], expected, rtol=1e-6 if entry == "floats" else 0)


@pytest.mark.parametrize("name", ISAS)
def test_reading_reads_every_byte_once(name: str) -> None:
    data = copy_of(np.random.default_rng(2).integers(0, 256, 64 * 4 * 7), np.uint8)
    out = copy_of(np.zeros(128), np.uint8)
    machine(name).call("ceiling.read", source=address(data), nbytes=data.size, cells=address(out), threads=2)
    seen = np.bitwise_xor.reduce(data.reshape(-1, 64), 0)
    assert np.array_equal(out[:64] ^ out[64:], seen)
    assert out[:64].any()
    assert out[64:].any()


def test_probe_measures_every_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BUFFER": 1 << 20, "RUNS": 2, "ROUNDS": 100}.items():
        monkeypatch.setattr(ceilings, name, value)
    chosen = isa.select_isa()
    probe = Probe(chosen, 2)
    found = probe.ceilings()
    assert list(found.read) == [1, 2]
    assert set(found.operations) == set(instructions(chosen))
    assert found.ternary in found.operations
    assert all(value > 0 for by_threads in found.operations.values() for value in by_threads.values())
    assert found.json["read_bytes_per_s"]["2"]["n"] == ceilings.READS
    assert probe.cycles_per_second(0.01) > 0
