"""Small kernels that store what each vector instruction makes of its inputs, for `test_vectors.py` to check.

Each is built as `entry-version` (see `harness.vector_kernel`). An item is the operands, one after another; the results
are stored one after another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile import arithmetic, half, x86
from ternrun.runtime.cpu.compile import vectors as vector_types
from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.lanes import (
    constant,
    iota,
    lane,
    narrow,
    reinterpret,
    shuffler,
    splat,
    to_float,
    to_int,
    widen,
    widen_unsigned,
    zero,
)  # fmt: skip
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, store, store_scalar
from ternrun.runtime.cpu.compile.vectors import VecType, f32x16, i8x16, i8x32, i16x16, i16x32, i32x16
from ternrun.runtime.cpu.kernels import functions
from tests.runtime.cpu import vector_signature

vector_signature.register()


def build(entry: str) -> Callable[..., Any]:
    """The kernel that applies `ENTRIES[entry]` to every item."""
    body = compiled(ENTRIES[entry.partition("-")[0]])

    @compiled
    def kernel(args: Any, tid: int, nt: int) -> int:
        for i in range(args.items):
            body(args.source + args.source_bytes * i, args.out + args.out_bytes * i)
        return 0

    return kernel  # type: ignore[no-any-return]


def _integers(vec: VecType) -> Callable[..., None]:
    size, bits, lanes = vec.bits * vec.lanes // 8, vec.bits, vec.lanes
    backwards = shuffler(vec, tuple(reversed(range(lanes))), operands=1)
    zipped = shuffler(vec, tuple(i // 2 + lanes * (i % 2) for i in range(lanes)))
    pattern = constant(vec, tuple(3 * i - 40 for i in range(lanes)))

    def body(src: int, dst: int) -> None:
        a, b, n = load(vec, src), load(vec, src + size), load_scalar(types.int64, src + 2 * size)
        store(dst, a + b)
        store(dst + size, a - b)
        store(dst + 2 * size, a * b)
        store(dst + 3 * size, a & b)
        store(dst + 4 * size, a | b)
        store(dst + 5 * size, a ^ b)
        store(dst + 6 * size, a << (b & (bits - 1)))
        store(dst + 7 * size, a >> (b & (bits - 1)))
        store(dst + 8 * size, a >> 3)
        store(dst + 9 * size, (a + 7) & 0x55)
        store(dst + 10 * size, splat(vec, n))
        store(dst + 11 * size, iota(vec) + pattern())
        store(dst + 12 * size, arithmetic.where_less(a, b, a, b))
        store(dst + 13 * size, backwards(a))
        store(dst + 14 * size, zipped(a, b))
        store(dst + 15 * size, zero(vec))
        store_scalar(dst + 15 * size, arithmetic.total(a))
        store_scalar(dst + 15 * size + 8, lane(a, n & (lanes - 1)))

    return body


def _floats(src: int, dst: int) -> None:
    a, b, c = load(f32x16, src), load(f32x16, src + 64), load(f32x16, src + 128)
    store(dst, a + b)
    store(dst + 64, a - b)
    store(dst + 128, a * b)
    store(dst + 192, a / b)
    store(dst + 256, arithmetic.fma(a, b, c))
    store(dst + 320, arithmetic.square_root(a))
    store(dst + 384, arithmetic.magnitude(a))
    store(dst + 448, arithmetic.maximum(a, b))
    store(dst + 512, arithmetic.minimum(a, b))
    store(dst + 576, arithmetic.where_less(a, b, a, b))
    store(dst + 640, arithmetic.round_even(c))
    store(dst + 704, zero(f32x16))
    store_scalar(dst + 704, arithmetic.total(a))
    store_scalar(dst + 708, arithmetic.largest(c))
    store_scalar(dst + 712, lane(a, types.int64(5)))


def _casts(src: int, dst: int) -> None:
    bytes_, words = load(i8x16, src), load(i16x16, src + 16)
    store(dst, widen(i32x16, bytes_))
    store(dst + 64, widen_unsigned(i32x16, bytes_))
    store(dst + 128, narrow(i8x16, words))
    store(dst + 144, to_float(f32x16, widen(i32x16, words)))
    store(dst + 208, to_int(i32x16, load(f32x16, src + 48)))
    store(dst + 272, reinterpret(i32x16, load(f32x16, src + 48)))
    store(dst + 336, splat(f32x16, load_scalar(types.float32, src + 48)))


def _halves(src: int, dst: int) -> None:
    """Sixteen halves (or bfloat16s) to floats."""
    store(dst, half.load_f16(src))
    store(dst + 64, half.load_bf16(src))
    for i in range(16):
        store(dst + 128 + 64 * i, half.splat_f16(src + 2 * i))


def _floats_to_half(src: int, dst: int) -> None:
    store(dst, half.f16_bits(load(f32x16, src)))


def _functions(src: int, dst: int) -> None:
    x = load(f32x16, src)
    store(dst, functions.exp(x))
    store(dst + 64, functions.silu(x))
    store(dst + 128, functions.gelu(x))
    store(dst + 192, functions.relu2(x))


def _byte_products(src: int, dst: int) -> None:
    store(dst, x86.multiply_add_bytes(load(i8x32, src), load(i8x32, src + 32)))
    store(dst + 32, x86.add_pairs(load(i16x16, src)))


def _table(src: int, dst: int) -> None:
    store(dst, x86.lookup(load(i16x32, src), load(i16x32, src + 64)))
    store(dst + 64, x86.permute(load(i32x16, src), load(f32x16, src + 64)))


ENTRIES: dict[str, Callable[..., None]] = {
    **{
        name: _integers(getattr(vector_types, name))
        for name in ("i8x32", "i8x64", "i16x16", "i16x32", "i32x8", "i32x16")
    },
    "f32x16": _floats,
    "casts": _casts,
    "halves": _halves,
    "floats_to_half": _floats_to_half,
    "functions": _functions,
    "byte_products": _byte_products,
    "table": _table,
}
