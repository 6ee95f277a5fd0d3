"""Rotation, paged cache and attention against numpy: what `store` writes, then what `attend` makes of just that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ternrun.runtime.config import RopeConfig
from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.memory import address, aligned, padded_vector, round_up
from ternrun.runtime.rope import RopeTable
from tests.reference import rope_tables, rotate
from tests.runtime.cpu.harness import Machine, copy_of

F32 = NDArray[np.float32]
BLOCK, BLOCKS, EPS = layout.KV_BLOCK, 24, 1e-5


@dataclass(frozen=True)
class Case:
    """Shapes and wiring of one layer's attention."""

    heads: int
    kv_heads: int
    dim: int
    rope: int = -1  # elements rotated; -1: all
    style: Any = "neox"
    norm: bool = False
    window: int = 0
    kv: str = "f16"


CASES = {
    "plain": Case(4, 4, 64),
    "grouped": Case(6, 2, 64, kv="f32"),
    "one key head, interleaved": Case(8, 1, 32, style="norm"),
    "small": Case(2, 1, 8, style="norm", kv="f32"),
    "odd 20": Case(3, 3, 20, norm=True),
    "odd 20 interleaved": Case(3, 1, 20, style="norm", kv="f32"),
    "80, partly rotated": Case(4, 2, 80, rope=32, norm=True),
    "96": Case(4, 2, 96, kv="f32", norm=True),
    "128 with a window": Case(4, 1, 128, window=5, style="norm"),
    "window of a block": Case(2, 2, 16, window=16, kv="f32"),
    "window over blocks": Case(2, 1, 64, window=21, norm=True),
    "256": Case(2, 1, 256, norm=True, kv="f32"),
    "no rotation": Case(2, 2, 48, rope=0),
    "odd 5": Case(2, 1, 5, rope=2, kv="f32"),
    "int8": Case(8, 2, 128, kv="int8"),
    "int8, odd 20, window": Case(3, 1, 20, window=18, kv="int8"),
    "int8, odd 5": Case(2, 1, 5, rope=2, kv="int8"),
}
#: Tokens of each sequence before and in the step: prompts, single tokens, whole blocks, one sequence still empty.
STEPS = [(0, 19, 0), (37, 1, 0), (0, 3, 16), (1, 1, 17), (1, 0, 1)]


class Layer:
    """One layer's cache over shuffled blocks, filled step by step; all memory that is not written yet is NaN."""

    def __init__(self, on: Machine, case: Case, seed: int) -> None:
        self.on, self.case = on, case
        self.rng = np.random.default_rng(seed)
        self.padded = round_up(case.dim, 16)
        self.kv = np.dtype({"f16": np.float16, "f32": np.float32, "int8": np.int8}[case.kv])
        self.head_bytes = layout.kv_head_bytes(case.kv, case.dim)
        self.cache = aligned(self.head_bytes * case.kv_heads * BLOCKS)
        self.cache[:] = 0xFF
        self.tables = copy_of(self.rng.permutation(BLOCKS).reshape(3, -1), np.int32)
        self.config = RopeConfig(dim=case.dim if case.rope < 0 else case.rope, style=case.style)
        tables = RopeTable(self.config, 128, local=False)
        tables.reach(128)
        self.cos, self.sin = tables.cos, tables.sin
        norms = [self.rng.uniform(0.5, 1.5, case.dim).astype(np.float32) for _ in range(2)]
        self.norms = [padded_vector(n) if case.norm else None for n in norms]
        self.lengths = [0, 0, 0]

    def step(self, counts: tuple[int, ...], threads: int) -> tuple[Any, ...]:
        """Random q, k, v of the next tokens of each sequence through both kernels."""
        case = self.case
        slots = copy_of(np.repeat(range(3), counts), np.int32)
        starts = np.array(self.lengths)
        positions = copy_of(np.concatenate([starts[i] + np.arange(n) for i, n in enumerate(counts)]), np.int32)
        tokens, per_token = len(slots), (case.heads + 2 * case.kv_heads) * case.dim
        self.lengths = [a + n for a, n in zip(self.lengths, counts, strict=True)]
        ld = round_up(per_token, 16)
        qkv = copy_of(self.rng.standard_normal((tokens, ld)) * 2)
        state = copy_of(np.zeros(layout.STATE_BYTES // 8), np.int64)
        for name, value in {
            "tokens": tokens, "positions": address(positions), "slots": address(slots), "tables": address(self.tables),
            "table_stride": self.tables.shape[1],
        }.items():  # fmt: skip
            state[layout.STATE[name] // 8] = value
        q = copy_of(np.full((tokens, case.heads * self.padded), np.nan))
        out = copy_of(np.full((tokens, case.heads * case.dim + 16), np.nan))
        scratch = aligned(threads * 4096)
        q_norm, k_norm = (0 if n is None else address(n) for n in self.norms)
        shared = {
            "state": address(state), "heads": case.heads, "kv_heads": case.kv_heads, "head_dim": case.dim,
            "cache": address(self.cache), "block_bytes": self.head_bytes * case.kv_heads,
            "head_bytes": self.head_bytes, "scratch": address(scratch), "scratch_stride": 4096,
        }  # fmt: skip
        self.on.call(
            f"cache.{case.kv}", qkv=address(qkv), ldq=ld, cos=address(self.cos), sin=address(self.sin),
            rope_dim=self.config.dim, interleaved=int(case.style == "norm"), q_norm=q_norm, k_norm=k_norm, eps=EPS,
            out=address(q), ldo=q.shape[1], threads=threads, **shared,
        )  # fmt: skip
        self.on.call(
            f"attention.{case.kv}", q=address(q), ldq=q.shape[1], scale=1 / math.sqrt(case.dim), window=case.window,
            out=address(out), ldo=out.shape[1], threads=threads, **shared,
        )  # fmt: skip
        assert np.isnan(out[:, -16:]).all()
        return slots, positions, qkv[:, :per_token], q, out[:, :-16]

    def cached(self, slot: int, position: int) -> tuple[F32, F32]:
        """Keys and values (kv heads, dim) of one token, as they lie in the cache."""
        block = self.tables[slot, position // BLOCK]
        heads = self.cache[: self.head_bytes * self.case.kv_heads * BLOCKS].reshape(BLOCKS, self.case.kv_heads, -1)[
            block
        ]
        count, at = BLOCK * (self.case.dim + self.padded), position % BLOCK
        elements = heads[:, : self.kv.itemsize * count].view(self.kv)
        keys = elements[:, : BLOCK * self.case.dim].reshape(-1, self.case.dim, BLOCK)[:, :, at].astype(np.float32)
        values = elements[:, BLOCK * self.case.dim :].reshape(-1, BLOCK, self.padded)[:, at].astype(np.float32)
        if self.case.kv == "int8":
            steps = np.ascontiguousarray(heads[:, count:]).view(np.float32).reshape(len(heads), -1, BLOCK)[:, :, at]
            each = np.repeat(steps[:, :-1], layout.KEY_GROUP, axis=1)[:, : self.case.dim]
            keys, values = keys * each, values * steps[:, -1:]
        return keys, values[:, : self.case.dim]

    def turned(self, x: F32, norm: F32 | None, position: int) -> F32:
        """A head (heads, dim) normed and rotated, in numpy."""
        if norm is not None:
            inverse = 1 / np.sqrt(np.square(x, dtype=np.float64).mean(-1, keepdims=True) + EPS)
            x = (x * inverse * norm[: self.case.dim]).astype(np.float32)
        cos, sin = rope_tables(self.config, position + 1, sliding=False)
        return rotate(x[None], cos[position:], sin[position:], self.config)[0]


@pytest.mark.parametrize("name", CASES)
def test_store_and_attend(machine: Machine, name: str) -> None:
    case = CASES[name]
    layer = Layer(machine, case, len(name))
    rounding = {"f16": 2.0**-10, "f32": 0, "int8": 0}[case.kv]
    for number, counts in enumerate(STEPS):
        slots, positions, qkv, q, out = layer.step(counts, threads=1 + number % 3)
        for t, (slot, position) in enumerate(zip(slots, positions, strict=True)):
            rows = qkv[t].reshape(-1, case.dim)
            queries, keys, values = np.split(rows, [case.heads, case.heads + case.kv_heads])
            found_q = q[t].reshape(case.heads, -1)
            found_k, found_v = layer.cached(slot, position)
            np.testing.assert_allclose(
                found_q[:, : case.dim], layer.turned(queries, layer.norms[0], position), rtol=1e-5, atol=5e-6
            )
            assert (found_q[:, case.dim :] == 0).all()
            keys = layer.turned(keys, layer.norms[1], position)
            if case.kv == "int8":  # at most half a step: of the largest element of a key's group, of a whole value
                for found, wanted, group in ((found_k, keys, layout.KEY_GROUP), (found_v, values, case.dim)):
                    for first in range(0, case.dim, group):
                        exact = wanted[:, first : first + group]
                        off = np.abs(found[:, first : first + group] - exact)
                        assert (off <= np.abs(exact).max(1, keepdims=True) / 253.9).all()
            else:
                np.testing.assert_allclose(found_k, keys, rtol=1e-5 + rounding, atol=5e-6)
                np.testing.assert_array_equal(found_v, values.astype(layer.kv))
            np.testing.assert_allclose(
                out[t].reshape(case.heads, -1), attended(layer, found_q[:, : case.dim], slot, position), atol=1e-5
            )


def attended(layer: Layer, q: F32, slot: int, position: int) -> NDArray[np.float64]:
    """Attention of one token's heads over what the cache holds, in float64."""
    case = layer.case
    first = max(0, position - case.window + 1) if case.window else 0
    pairs = [layer.cached(slot, p) for p in range(first, position + 1)]
    keys, values = (np.stack(part, 1).astype(np.float64) for part in zip(*pairs, strict=True))  # (kv heads, n, dim)
    keys, values = (np.repeat(a, case.heads // case.kv_heads, 0) for a in (keys, values))
    scores = np.einsum("hd,hnd->hn", q, keys) / math.sqrt(case.dim)
    p = np.exp(scores - scores.max(1, keepdims=True))
    mixed: NDArray[np.float64] = np.einsum("hn,hnd->hd", p / p.sum(1, keepdims=True), values)
    return mixed


def test_same_bits_alone_together_and_on_every_instruction_set(machine: Machine) -> None:
    """A token's result depends neither on its neighbours in the step nor on the threads."""
    for name in ("grouped", "80, partly rotated", "window over blocks", "int8"):
        whole = Layer(machine, CASES[name], 1).step((18, 0, 33), threads=1)
        again = Layer(machine, CASES[name], 1).step((18, 0, 33), threads=5)
        np.testing.assert_array_equal(whole[-1], again[-1])
        if name not in FIRST:
            FIRST[name] = whole[-1]
        np.testing.assert_array_equal(whole[-1], FIRST[name])


FIRST: dict[str, F32] = {}  # results of the first instruction set


@pytest.mark.parametrize(
    "scaling",
    [
        {},
        {"scaling": "linear", "factor": 4.0},
        {"scaling": "yarn", "factor": 4.0, "original_context": 64, "attention_factor": 1.14},
        {"frequency_factors": tuple(np.linspace(1, 8, 24).tolist())},
        {"local_base": 1e4, "base": 1e6, "scaling": "linear", "factor": 8.0},
    ],
)
@pytest.mark.parametrize("local", [False, True])
def test_angles(scaling: dict[str, Any], local: bool) -> None:
    config = RopeConfig(dim=48, **scaling)
    tables = RopeTable(config, 300, local=local)
    for positions in (5, 300, 7):
        tables.reach(positions)
    for table, wanted in zip((tables.cos, tables.sin), rope_tables(config, 300, sliding=local), strict=True):
        np.testing.assert_allclose(table[: 300 * 24].reshape(300, 1, 24), wanted, rtol=0, atol=6e-8)
