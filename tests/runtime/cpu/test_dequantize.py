"""Weights decoded in machine code against `loader/quants.py`, bit for bit: every encoding, bytes of any content."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ternrun.loader.quants.table import decode, trits
from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.memory import address
from ternrun.runtime.cpu.weights.scales import block_scales
from ternrun.runtime.encodings import ENCODINGS
from ternrun.runtime.weights import Tensor
from tests.runtime.cpu.harness import ORDINARY, TERNARY, Machine, copy_of, guarded
from tests.runtime.cpu.products import ternary_tensor

ANY_BYTES = ("TQ1_0", "PTQ1_0", "IQ1_BN", "Q1_0", "Q1_58")  # each byte of codes is a legal one


def looked_up(on: Machine, kernel: str, ids: list[int], cols: int, **weights: int) -> NDArray[np.float32]:
    """Rows `ids` of an embedding table as its kernel gives them, scale 1."""
    rows = copy_of(np.array(ids), np.int32)
    state = copy_of(np.zeros(layout.STATE_BYTES // 8), np.int64)
    state[layout.STATE["tokens"] // 8], state[layout.STATE["ids"] // 8] = len(ids), address(rows)
    out = copy_of(np.zeros((len(ids), cols)))
    on.call(kernel, state=address(state), n=cols, scale=1.0, out=address(out), ldo=cols, threads=2, **weights)
    return out


def same_bits(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> None:
    """Equal bit for bit; one NaN is as good as another."""
    numbers = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(found), ~numbers)
    np.testing.assert_array_equal(found.view(np.uint32)[numbers], wanted.view(np.uint32)[numbers])


@pytest.mark.parametrize("name", [*ORDINARY, "Q2_0", "PQ2_0"])
def test_ordinary_encodings(machine: Machine, name: str) -> None:
    encoding = ENCODINGS[name]
    cols = max(2 * encoding.block, 48)
    stride = cols // encoding.block * encoding.block_bytes
    data = guarded(np.random.default_rng(1).integers(0, 256, 64 * stride, np.uint8))
    ids = [63, 0, *range(1, 63), 5]
    found = looked_up(machine, f"embed.{name}", ids, cols, weights=address(data), row_bytes=stride)
    same_bits(found, decode(name, data, (64, cols))[ids])


@pytest.mark.parametrize("name", TERNARY)
def test_ternary_encodings(machine: Machine, name: str) -> None:
    rng = np.random.default_rng(2)
    shape = (32, 512 if name not in ("I2_S", "HF_PACKED") else 84)  # 84: blocks that run over row ends
    tensor = ternary_tensor(name, shape, rng)
    if name in ANY_BYTES:
        any_codes = rng.integers(0, 256, tensor.data.size, np.uint8)
        tensor = Tensor("w", name, shape, guarded(np.where(_codes(tensor), any_codes, tensor.data)))
    scales = copy_of(block_scales(tensor))
    scratch = copy_of(np.zeros(2 * (shape[1] + 1024)), np.uint8)
    ids = [31, 0, 1, 2, 3, 30, *range(4, 30)]
    found = looked_up(
        machine, f"embed.{name}-trits", ids, shape[1], weights=address(tensor.data), rows=shape[0],
        scales=address(scales), group=shape[1] // scales.shape[1], scratch=address(scratch),
        scratch_stride=shape[1] + 1024,
    )  # fmt: skip
    assert trits(name, tensor.data, shape)[0].max() == 1
    same_bits(found, decode(name, tensor.data, shape)[ids])


def _codes(tensor: Tensor) -> NDArray[np.bool_]:
    """Which bytes of a tensor hold codes: all those that change from weights of 1 to weights of -1."""
    ones, others = (ternary_tensor(tensor.type, tensor.shape, np.random.default_rng(2), w=w) for w in (1, -1))
    return ones.data != others.data
