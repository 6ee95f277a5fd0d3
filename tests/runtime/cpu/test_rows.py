"""Kernels on whole rows, and the mixing of residual streams, against numpy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.memory import address, padded_vector, round_up
from tests.runtime.cpu.harness import Machine, copy_of

F32 = NDArray[np.float32]
EPS = 1e-5
SIZES = [(1, 16), (3, 20), (5, 100), (2, 320), (9, 7)]  # tokens, columns


def padded(x: F32) -> F32:
    """Rows as kernels hold them: zeros up to whole vectors."""
    return copy_of(np.pad(x, ((0, 0), (0, -x.shape[1] % 16))))


def exact_norm(x: F32, weight: F32) -> NDArray[np.float64]:
    """RMSNorm in float64."""
    wide = x.astype(np.float64)
    return wide / np.sqrt(np.square(wide).mean(-1, keepdims=True) + EPS) * weight


@pytest.mark.parametrize(("tokens", "n"), SIZES)
def test_norms(machine: Machine, tokens: int, n: int) -> None:
    rng = np.random.default_rng(n)
    x = rng.standard_normal((tokens, n)).astype(np.float32) * 30
    x[0] = 1e-4  # where eps counts
    weight = rng.uniform(0.5, 1.5, n).astype(np.float32)
    rows, held, count = padded(x), padded_vector(weight), copy_of(np.array([tokens]), np.int64)
    out = copy_of(np.full_like(rows, 3))
    args: dict[str, int | float] = {
        "count": address(count), "x": address(rows), "ldx": rows.shape[1], "n": n, "weight": address(held),
        "eps": EPS, "out": address(out), "ldo": rows.shape[1],
    }  # fmt: skip
    machine.call("rows.norm", threads=2, **args)
    np.testing.assert_allclose(out[:, :n], exact_norm(x, weight), rtol=1e-6)
    assert (out[:, n:] == 0).all()
    machine.call("rows.norm_add", threads=2, **args)
    np.testing.assert_allclose(out[:, :n], 2 * exact_norm(x, weight), rtol=1e-6)
    machine.call("rows.norm", **(args | {"weight": 0}))
    np.testing.assert_allclose(out[:, :n], exact_norm(x, np.ones(n, np.float32)), rtol=1e-6)


def test_norm_of_wanted_rows(machine: Machine) -> None:
    x = np.random.default_rng(1).standard_normal((6, 20)).astype(np.float32)
    rows, weight, wanted = padded(x), padded_vector(np.ones(20, np.float32)), copy_of(np.array([1, 2, 5]), np.int32)
    state = copy_of(np.zeros(layout.STATE_BYTES // 8), np.int64)
    state[layout.STATE["outputs"] // 8], state[layout.STATE["output_indices"] // 8] = 3, address(wanted)
    out = copy_of(np.zeros((3, 32)))
    machine.call(
        "rows.norm_outputs", state=address(state), x=address(rows), ldx=32, n=20, weight=address(weight), eps=EPS,
        out=address(out), ldo=32, threads=2,
    )  # fmt: skip
    np.testing.assert_allclose(out[:, :20], exact_norm(x[wanted], np.ones(20, np.float32)), rtol=1e-6)


def exact_activation(name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """In float64, without cancellation."""
    if name == "relu2":
        return np.square(np.maximum(x, 0))
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return x / (1 + np.exp(np.minimum(-x if name == "silu" else -2 * inner, 300)))


@pytest.mark.parametrize("name", ["silu", "gelu", "relu2"])
@pytest.mark.parametrize(("tokens", "n"), SIZES)
def test_gated_activations(machine: Machine, name: str, tokens: int, n: int) -> None:
    rng = np.random.default_rng(n)
    gate, up = (rng.standard_normal((tokens, n)).astype(np.float32) * 8 for _ in range(2))
    offset = round_up(n, 16)
    rows = copy_of(np.concatenate([padded(gate), padded(up)], axis=1))
    out, count = copy_of(np.full((tokens, offset), 3)), copy_of(np.array([tokens]), np.int64)
    machine.call(
        f"rows.{name}", count=address(count), x=address(rows), ldx=rows.shape[1], n=n, offset=offset,
        out=address(out), ldo=offset, threads=3,
    )  # fmt: skip
    wanted = exact_activation(name, gate.astype(np.float64)) * up
    np.testing.assert_allclose(
        out[:, :n], wanted, rtol=2e-5 if name == "gelu" else 2e-6, atol=1e-30
    )  # exp is 0 below -87
    assert (out[:, n:] == 0).all()


def test_bias_and_softcap(machine: Machine) -> None:
    rng = np.random.default_rng(2)
    x, bias = rng.standard_normal((4, 37)).astype(np.float32) * 40, rng.standard_normal(37).astype(np.float32)
    rows, count = padded(x), copy_of(np.array([4]), np.int64)
    held = padded_vector(bias)
    machine.call("rows.bias", count=address(count), x=address(rows), ldx=48, n=37, bias=address(held), threads=2)
    np.testing.assert_array_equal(rows[:, :37], x + bias)
    assert (rows[:, 37:] == 0).all()
    machine.call("rows.softcap", count=address(count), x=address(rows), ldx=48, n=37, cap=30.0, threads=2)
    np.testing.assert_allclose(rows[:, :37], 30 * np.tanh((x + bias).astype(np.float64) / 30), rtol=1e-5, atol=5e-6)


STREAMS: dict[str, Callable[[F32, F32, F32], F32]] = {
    "spread": lambda x, table, y: np.broadcast_to(x[:, :1], x.shape),
    "write": lambda x, table, y: np.einsum("rs,tsd->trd", table[:-2], x) + table[-1][:, None] * y[:, None],
}


@pytest.mark.parametrize("streams", [2, 4])
def test_streams(machine: Machine, streams: int) -> None:
    rng = np.random.default_rng(streams)
    tokens, ld = 5, 48
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((tokens, streams, ld), (tokens, ld)))
    table = copy_of(rng.uniform(0, 1, (streams + 2, streams)))
    count, scratch = copy_of(np.array([tokens]), np.int64), copy_of(np.zeros(1024))
    for name, wanted in STREAMS.items():
        rows, given = copy_of(x), copy_of(y)
        args = {"count": address(count), "x": address(rows), "ld": ld, "streams": streams}
        if name == "write":
            args |= {"table": address(table), "y": address(given), "scratch": address(scratch), "scratch_stride": 1024}
        machine.call(f"mhc.{name}", threads=3, **args)
        np.testing.assert_allclose(rows, wanted(x, table, y), rtol=1e-5, atol=1e-6)
    rows, out = copy_of(x), copy_of(np.zeros((tokens, ld)))
    args = {"count": address(count), "x": address(rows), "ld": ld, "streams": streams}
    machine.call("mhc.read", table=address(table), out=address(out), threads=3, **args)
    np.testing.assert_allclose(out, np.einsum("s,tsd->td", table[streams], x), rtol=1e-5, atol=1e-6)
    machine.call("mhc.mean", threads=3, **args)
    np.testing.assert_allclose(rows[:, 0], x.mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rows[:, 1:], x[:, 1:])
