"""Every vector instruction against plain numpy, on every instruction set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.runtime.cpu.harness import ISAS, Machine, apply
from tests.runtime.cpu.harness import machine as machine_of

ALL_HALVES = np.arange(65536, dtype=np.uint16).reshape(-1, 16)


@pytest.mark.parametrize("name", ["i8x32", "i8x64", "i16x16", "i16x32", "i32x8", "i32x16"])
def test_integer_lanes(machine: Machine, name: str) -> None:
    bits, lanes = (int(part) for part in name[1:].split("x"))
    signed, unsigned = np.dtype(f"i{bits // 8}"), np.dtype(f"u{bits // 8}")
    size = bits * lanes // 8
    data = np.random.default_rng(1).integers(0, 256, (50, 2 * size + 8), np.uint8)
    a, b = data[:, :size].view(signed), data[:, size : 2 * size].view(signed)
    n = data[:, 2 * size :].copy().view(np.int64)
    shift = b & (bits - 1)
    expected = [
        a + b, a - b, a * b, a & b, a | b, a ^ b, a << shift, (a.view(unsigned) >> shift.view(unsigned)).view(signed),
        (a.view(unsigned) >> 3).view(signed), (a + 7).astype(signed) & 0x55,
        np.broadcast_to(n.astype(signed), a.shape),
        np.broadcast_to((4 * np.arange(lanes) - 40).astype(signed), a.shape),
        np.minimum(a, b), a[:, ::-1], np.stack([a, b], 2).reshape(50, -1)[:, :lanes],
    ]  # fmt: skip
    out = apply(machine, name, data, 16 * size).view(signed).reshape(50, 16, lanes)
    for i, wanted in enumerate(expected):
        np.testing.assert_array_equal(out[:, i], wanted, str(i))
    np.testing.assert_array_equal(out[:, 15, 0], a.sum(1, dtype=signed))
    np.testing.assert_array_equal(out[:, 15, 8 * 8 // bits], np.take_along_axis(a, n & (lanes - 1), 1)[:, 0])


def _halved(values: NDArray[Any]) -> NDArray[Any]:
    """Sums as vectors are reduced: first half plus second half, until one is left."""
    while values.shape[1] > 1:
        middle = values.shape[1] // 2
        values = values[:, :middle] + values[:, middle:]
    return values[:, 0]


def test_float_lanes(machine: Machine) -> None:
    rng = np.random.default_rng(2)
    data = (rng.standard_normal((400, 48)) * 10.0 ** rng.integers(-3, 4, (400, 48))).astype(np.float32)
    data[:100, 32:] = rng.integers(-200, 200, (100, 16)) / 2  # ties of rounding
    a, b, c = data[:, :16], data[:, 16:32], data[:, 32:]
    with np.errstate(invalid="ignore"):
        root = np.sqrt(a)
    fused = (a.astype(np.longdouble) * b + c).astype(np.float32)
    expected = [
        a + b, a - b, a * b, a / b, fused, root, np.abs(a), np.maximum(a, b), np.minimum(a, b), np.minimum(a, b),
        np.rint(c),
    ]  # fmt: skip
    out = apply(machine, "f32x16", data, 768).view(np.float32).reshape(400, 12, 16)
    for i, wanted in enumerate(expected):
        np.testing.assert_array_equal(out[:, i], wanted, str(i))
    np.testing.assert_array_equal(out[:, 11, 0], _halved(a))
    np.testing.assert_array_equal(out[:, 11, 1], c.max(1))
    np.testing.assert_array_equal(out[:, 11, 2], a[:, 5])


def test_float_lanes_that_are_no_numbers(machine: Machine) -> None:
    """maximum and minimum drop a NaN, where_less takes the second choice."""
    data = np.zeros((1, 48), np.float32)
    data[0, :4], data[0, 16:20] = [np.nan, 1, np.inf, -np.inf], [2, np.nan, 3, 4]
    out = apply(machine, "f32x16", data, 768).view(np.float32).reshape(12, 16)
    np.testing.assert_array_equal(out[7, :4], [2, 1, np.inf, 4])
    np.testing.assert_array_equal(out[8, :4], [2, 1, 3, -np.inf])
    np.testing.assert_array_equal(out[9, :4], [2, np.nan, 3, -np.inf])


def test_casts(machine: Machine) -> None:
    rng = np.random.default_rng(4)
    data = rng.integers(0, 256, (60, 112), np.uint8)
    floats = (rng.standard_normal((60, 16)) * 1e5).astype(np.float32)
    data[:, 48:] = floats.view(np.uint8)
    out = apply(machine, "casts", data, 400)
    np.testing.assert_array_equal(out[:, :64].view(np.int32), data[:, :16].view(np.int8))
    np.testing.assert_array_equal(out[:, 64:128].view(np.int32), data[:, :16])
    words = data[:, 16:48].view(np.int16)
    np.testing.assert_array_equal(out[:, 128:144].view(np.int8), words.astype(np.int8))
    np.testing.assert_array_equal(out[:, 144:208].view(np.float32), words)
    np.testing.assert_array_equal(out[:, 208:272].view(np.int32), np.trunc(floats))
    np.testing.assert_array_equal(out[:, 272:336], data[:, 48:])
    np.testing.assert_array_equal(out[:, 336:].view(np.float32), np.broadcast_to(floats[:, :1], (60, 16)))


def test_every_half_becomes_its_float(machine: Machine) -> None:
    out = apply(machine, "halves", ALL_HALVES, 128 + 64 * 16).view(np.float32)
    halves = ALL_HALVES.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(out[:, :16], halves)
    np.testing.assert_array_equal(out[:, 32:], np.repeat(halves, 16, 1))
    np.testing.assert_array_equal(out[:, 16:32], (ALL_HALVES.astype(np.uint32) << 16).view(np.float32))
    np.testing.assert_array_equal(np.signbit(out[:, :16]), np.signbit(halves))


def test_floats_round_to_halves(machine: Machine) -> None:
    """Every half, the middles between neighbours, what lies just beside them, and what overflows."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    middles = (halves[1:] + halves[:-1]) / 2
    edges = np.array([65504, 65519.99, 65520, 1e6, 3e38, np.inf, 0, 1e-45, 2.0**-25, np.nan])
    floats = np.concatenate([halves, middles, edges]).astype(np.float32)
    floats = np.concatenate([floats, np.nextafter(floats, np.float32(0)), np.nextafter(floats, np.float32(np.inf))])
    floats = np.concatenate([floats, -floats, np.zeros(-2 * len(floats) % 16, np.float32)]).reshape(-1, 16)
    with np.errstate(over="ignore"):
        expected = floats.astype(np.float16)
    out = apply(machine, "floats_to_half", floats, 32).view(np.float16)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(np.signbit(out), np.signbit(expected))


def _ulps(found: NDArray[Any], exact: NDArray[Any]) -> float:
    return float((np.abs(found - exact) / np.spacing(np.abs(exact).astype(np.float32))).max())


def test_functions(machine: Machine) -> None:
    x = np.concatenate([np.linspace(-86.9, 87.9, 20000), np.linspace(-1, 1, 20000)]).astype(np.float32).reshape(-1, 16)
    out = apply(machine, "functions", x, 256).view(np.float32).reshape(-1, 4, 16)
    wide = x.astype(np.float64)
    assert _ulps(out[:, 0], np.exp(wide)) <= 2
    assert _ulps(out[:, 1], wide / (1 + np.exp(-wide))) <= 6
    twice = 2 * np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)
    normal = np.abs(twice) < 80  # beyond, float32 has fewer bits; and there gelu is 0 or x
    gelu = wide / (1 + np.exp(-np.clip(twice, -80, None)))
    np.testing.assert_allclose(out[:, 2][normal], gelu[normal], rtol=2e-5)
    np.testing.assert_allclose(out[:, 2], gelu, atol=1e-32, rtol=2e-5)
    np.testing.assert_array_equal(out[:, 3], np.square(np.maximum(x, 0)))


def test_functions_at_the_ends(machine: Machine) -> None:
    x = np.array([[-np.inf, -1e30, -1000, -87.5, 0, 88.5, 1000, 1e30] * 2], np.float32)
    out = apply(machine, "functions", x, 256).view(np.float32).reshape(4, 16)[:, :8]
    assert list(out[0, :5]) == [0, 0, 0, 0, 1]
    assert (np.isfinite(out[0])).all()  # capped at e**88
    assert (np.abs(out[1, 1:5]) <= -x[0, 1:5] * np.exp(-87)).all()
    np.testing.assert_array_equal(out[1, 5:], x[0, 5:8])
    np.testing.assert_allclose(out[2, 2:7], [0, 0, 0, x[0, 5], 1000], rtol=0, atol=1e-34)


def test_functions_of_nan_are_nan(machine: Machine) -> None:
    x = np.full((1, 16), np.nan, np.float32)
    assert np.isnan(apply(machine, "functions", x, 256).view(np.float32)).all()


def test_products_of_bytes(machine: Machine) -> None:
    """Unsigned codes below 4 times signed bytes, summed by pairs; and pairs of any int16."""
    data = np.random.default_rng(5).integers(0, 256, (60, 64), np.uint8)
    data[:, :32] &= 3
    data[0, :32], data[0, 32:] = 3, 128  # -128: the largest product there is
    product = data[:, :32].astype(np.int16) * data[:, 32:].view(np.int8)
    words = data[:, :32].view(np.int16).astype(np.int32)
    out = apply(machine, "byte_products", data, 64)
    np.testing.assert_array_equal(out[:, :32].view(np.int16), product[:, ::2] + product[:, 1::2])
    np.testing.assert_array_equal(out[:, 32:].view(np.int32), words[:, ::2] + words[:, 1::2])


@pytest.mark.parametrize("name", sorted({"avx512"} & {*ISAS}))
def test_table_lookup(name: str) -> None:
    data = np.random.default_rng(6).integers(0, 65536, (60, 64), np.uint16)
    out = apply(machine_of(name), "table", data, 128).view(np.uint16)
    np.testing.assert_array_equal(out[:, :32], np.take_along_axis(data[:, 32:], data[:, :32] & 31, 1))
    index, table = (data[:, at : at + 32].copy().view(np.uint32) for at in (0, 32))
    np.testing.assert_array_equal(out[:, 32:].copy().view(np.uint32), np.take_along_axis(table, index & 15, 1))
