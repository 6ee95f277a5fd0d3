"""Prepare activations for the ternary kernels: RMSNorm, then int8 quantization of each token.

Quantization is BitNet's: s = 127 / max(max|x|, 1e-5), q = round-half-even(x * s) (arXiv 2402.17764).

The output begins with the step 1 / s of every token (float32, `header` bytes), followed by a row of `token_bytes` bytes
for each token. `lut16`: for every three inputs of a chunk the bytes q0 + 128, q1 + 128, q2 + 128, 128
(`ternary_tables.py` explains them); the bytes after the last input are arbitrary. `byte_dot`: int8, padded with zeros
to a multiple of 16, then each chunk's sum as int32.

With one token, every thread prepares it in an area of its own, so that no barrier is needed. Otherwise threads share
the tokens, and all of them read the first area.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.arithmetic import fma, largest, magnitude, maximum, round_even, total
from ternrun.runtime.cpu.compile.jit import compiled, share
from ternrun.runtime.cpu.compile.lanes import narrow, shuffler, splat, to_int, widen, zero
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, store, store_scalar
from ternrun.runtime.cpu.compile.vectors import f32x16, i8x16, i8x64, i16x16, i32x16
from ternrun.runtime.cpu.kernels.functions import inverse_rms, normalized

f32 = types.float32
_quads = shuffler(i8x64, tuple(64 if i % 4 == 3 else i // 4 * 3 + i % 4 for i in range(64)))


@compiled
def quantize_row(x: int, n: int, weight: int, eps: Any, q: int) -> Any:
    """Quantize a row to int16 at `q` (n padded to 16), after RMSNorm unless eps < 0; returns the step 1 / s.

    The step is NaN if the row has a value that is not finite, because codes have no such value.
    """
    inverse = f32(1.0) if eps < 0 else inverse_rms(x, n, eps)
    vectors = (n + 15) // 16
    peak, check = zero(f32x16), zero(f32x16)
    for i in range(vectors):
        value = normalized(x, inverse, weight, i)
        peak, check = maximum(peak, magnitude(value)), fma(value, zero(f32x16), check)  # 0 * inf and 0 * NaN are NaN
    s = f32(127.0) / max(largest(peak), f32(1e-5))
    for i in range(vectors):
        code = to_int(i32x16, round_even(normalized(x, inverse, weight, i) * splat(f32x16, s)))
        store(q + 32 * i, narrow(i16x16, code))
    return f32(1.0) / s + total(check)


@compiled
def _lut16(q: int, n: int, chunk: int, out: int) -> None:
    """Store the groups of three inputs of a row."""
    codes, offset = q + 2 * n + 64, splat(i8x64, 128)
    for i in range(0, n, 16):
        store(codes + i, narrow(i8x16, load(i16x16, q + 2 * i) + 128))
    groups = (chunk + 8) // 9 * 3
    for c in range((n + chunk - 1) // chunk):
        for g in range(0, groups, 16):  # the last store may reach into the next chunk, which is stored next
            store(out + 4 * (groups * c + g), _quads(load(i8x64, codes + chunk * c + 3 * g), offset))


@compiled
def _byte_dot(q: int, n: int, chunk: int, out: int) -> None:
    """Store the int8 codes of a row and the sums of its chunks."""
    for i in range(0, n, 16):
        store(out + i, narrow(i8x16, load(i16x16, q + 2 * i)))
    sums = out + (n + 15) // 16 * 16
    for c in range((n + chunk - 1) // chunk):
        acc = zero(i32x16)
        for i in range(c * chunk, min(n, (c + 1) * chunk), 16):
            acc = acc + widen(i32x16, load(i16x16, q + 2 * i))
        store_scalar(sums + 4 * c, types.int32(total(acc)))


def build(entry: str) -> Callable[..., Any]:
    """Entries: lut16, byte_dot."""
    finish = {"lut16": _lut16, "byte_dot": _byte_dot}[entry]

    @compiled
    def prepare(args: Any, tid: int, nt: int) -> int:
        """Quantize rows of n inputs. `weight` 0: a norm without weights; `eps` below 0: no norm."""
        tokens, x, ldx, n = load_scalar(types.int64, args.count), args.x, 4 * args.ldx, args.n
        out, q = args.out, args.scratch + args.scratch_stride * tid
        first, last = share(tokens, tid, nt)
        if tokens == 1:
            out += args.out_stride * tid
            first, last = 0, 1
        for t in range(first, last):
            store_scalar(out + 4 * t, quantize_row(x + ldx * t, n, args.weight, args.eps, q))
            finish(q, n, args.chunk, out + args.header + args.token_bytes * t)
        return 0

    return prepare
