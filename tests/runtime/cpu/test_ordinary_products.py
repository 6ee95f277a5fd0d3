"""Products with ordinary weights against float64, and their independence of tokens, threads and instruction set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ternrun.loader.quants.table import decode
from ternrun.runtime.encodings import ENCODINGS, nbytes
from ternrun.runtime.weights import Tensor
from tests.runtime.cpu.harness import ISAS, LINEARS, Machine, guarded
from tests.runtime.cpu.harness import machine as machine_of
from tests.runtime.cpu.products import Setting, product

SHAPES = [(1, 256), (3, 512), (37, 256), (66, 768)]
ODD = [(5, 20), (8, 7), (9, 100)]  # rows of plain floats that do not fill vectors


def tensor_of(name: str, shape: tuple[int, int], scale: float = 1.0) -> Tensor:
    """Weights of moderate size: random bytes, with exponents of floats and scales kept small."""
    rng = np.random.default_rng(shape[0])
    data = rng.integers(0, 256, nbytes(name, shape), np.uint8)
    if ENCODINGS[name].kind == "float":
        values = rng.standard_normal(shape).astype(np.float32)
        bits = {"F32": values, "F16": values.astype(np.float16), "BF16": values.view(np.uint16).reshape(-1, 2)[:, 1]}[
            name
        ]
        data = np.ascontiguousarray(bits).reshape(-1).view(np.uint8)
    else:
        blocks = data.reshape(-1, ENCODINGS[name].block_bytes)
        for at in {"Q6_K": (208,), "Q4_K": (0, 2)}.get(name, (0,)):
            halves = rng.uniform(0.001, 0.01, len(blocks)).astype(np.float16)
            blocks[:, at : at + 2] = halves.view(np.uint8).reshape(-1, 2)
    return Tensor("w", name, shape, guarded(data), scale)


@pytest.mark.parametrize("name", LINEARS)
def test_products(machine: Machine, name: str) -> None:
    for shape in SHAPES + (ODD if ENCODINGS[name].block == 1 else []):
        tensor = tensor_of(name, shape, 0.5)
        x = np.random.default_rng(1).standard_normal((9, shape[1])).astype(np.float32)
        w = decode(name, tensor.data, shape).astype(np.float64) * 0.5
        found = product(machine, [tensor], x, Setting(threads=2))[0]
        bound = np.abs(x) @ np.abs(w).T * 2.0**-22  # as a sum of 16 chains of at most 48 products may be off
        assert (np.abs(found - x.astype(np.float64) @ w.T) <= bound).all()
        for tokens, threads in ((1, 1), (4, 3), (7, 5)):
            alone = product(machine, [tensor], x[:tokens], Setting(threads=threads))[0]
            np.testing.assert_array_equal(alone, found[:tokens])


@pytest.mark.parametrize("name", ["F32", "Q4_K"])
def test_many_tokens(machine: Machine, name: str) -> None:
    """Rows in blocks, inputs in cuts: the bits of each token alone."""
    for rows, threads, odd in ((78, 2, 0), (33, 1, 4)):
        tensor = tensor_of(name, (rows, 1536))
        if odd and name == "F32":  # weights that do not lie on cache lines
            tensor = replace(tensor, data=guarded(np.concatenate((tensor.data, tensor.data[:odd])))[:-odd])
        x = np.random.default_rng(6).standard_normal((45, 1536)).astype(np.float32)
        found = product(machine, [tensor], x, Setting(threads=threads, add=True))[0]
        for t in (0, 5, 41, 44):
            alone = product(machine, [tensor], x[t : t + 1], Setting(add=True))[0]
            np.testing.assert_array_equal(alone, found[t : t + 1])


@pytest.mark.parametrize("name", LINEARS)
def test_same_bits_on_every_instruction_set(name: str) -> None:
    tensor = tensor_of(name, (21, 512))
    x = np.random.default_rng(2).standard_normal((6, 512)).astype(np.float32)
    norm = np.random.default_rng(3).uniform(0.5, 1.5, 512).astype(np.float32)
    first, *others = (product(machine_of(isa), [tensor], x, Setting(norm=norm, add=True))[0] for isa in ISAS)
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_norm_comes_before_the_product(machine: Machine) -> None:
    tensor = tensor_of("F32", (16, 64))
    x = np.random.default_rng(4).standard_normal((3, 64)).astype(np.float32)
    norm = np.random.default_rng(5).uniform(0.5, 1.5, 64).astype(np.float32)
    wide: NDArray[np.float64] = x / np.sqrt(np.square(x, dtype=np.float64).mean(1, keepdims=True) + 1e-5) * norm
    found = product(machine, [tensor], x, Setting(norm=norm))[0]
    wanted = wide @ decode("F32", tensor.data, (16, 64)).astype(np.float64).T
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
