"""What encoders do to rows between products, against numpy: rows of any length, NaN and infinities, in place."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ternrun.runtime.cpu.memory import address
from tests.runtime.cpu.harness import Machine, copy_of, guarded

F32 = NDArray[np.float32]
SHAPES = [(1, 1), (3, 16), (5, 28), (2, 100), (7, 33)]


def numbers(shape: tuple[int, int]) -> F32:
    return (np.random.default_rng(shape[1]).standard_normal(shape) * 3).astype(np.float32)


def held(x: F32) -> F32:
    """A copy with nothing readable behind it."""
    return guarded(x.reshape(-1).view(np.uint8)).view(np.float32).reshape(x.shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_erf_gelu_and_silu(machine: Machine, shape: tuple[int, int]) -> None:
    x = numbers(shape)
    x.reshape(-1)[:1] = 30
    erf = np.vectorize(math.erf)(x.astype(np.float64))
    gelu, silu = x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))), x / (1 + np.exp(-x.astype(np.float64)))
    for kernel, wanted in (("erf", erf), ("gelu", gelu), ("silu", silu)):
        rows = held(x)
        machine.call(f"elements.{kernel}", n=x.size, x=address(rows), out=address(rows), threads=2)
        np.testing.assert_allclose(rows, wanted, atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_softmax(machine: Machine, shape: tuple[int, int]) -> None:
    x = numbers(shape)
    x[0, 0] = -np.inf if shape[1] > 1 else 5
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    rows, out = held(x), held(np.zeros_like(x))
    machine.call("elements.softmax", rows=shape[0], n=shape[1], x=address(rows), out=address(out), threads=2)
    np.testing.assert_allclose(out, e / e.sum(1, keepdims=True), atol=1e-6)
    np.testing.assert_array_equal(rows, x)


def test_nan_stays_nan(machine: Machine) -> None:
    x = numbers((4, 20))
    x[0, 3], x[1] = np.nan, -np.inf
    out = copy_of(np.zeros_like(x))
    rows = copy_of(x)
    machine.call("elements.softmax", rows=4, n=20, x=address(rows), out=address(out))
    assert np.isnan(out[:2]).all()
    assert np.isfinite(out[2:]).all()
    machine.call("elements.gelu", n=x.size, x=address(rows), out=address(out))
    assert np.isnan(out[0]).sum() == 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("biased", [True, False])
def test_layer_norm(machine: Machine, shape: tuple[int, int], biased: bool) -> None:
    x, weight, bias = numbers(shape), numbers((1, shape[1]))[0] + 1, numbers((2, shape[1]))[1]
    wide, eps = x.astype(np.float64), 1e-5
    wanted = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + eps) * weight + bias * biased
    rows, w, b = held(x), held(weight), held(bias)
    machine.call(
        "elements.layer_norm", rows=shape[0], n=shape[1], x=address(rows), weight=address(w),
        bias=address(b) if biased else 0, eps=eps, out=address(rows), threads=3,
    )  # fmt: skip
    np.testing.assert_allclose(rows, wanted, atol=2e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_bias(machine: Machine, shape: tuple[int, int]) -> None:
    x, bias = numbers(shape), numbers((2, shape[1]))[1]
    rows, b, count = held(x), held(bias), copy_of(np.array([shape[0]]), np.int64)
    machine.call("elements.bias", count=address(count), n=shape[1], x=address(rows), bias=address(b), threads=2)
    np.testing.assert_array_equal(rows, x + bias)
