"""y = W x for ternary weights by byte products: vpdpbusd (AVX-VNNI), vpmaddubsw (AVX2), or portable code.

Codes are trit + 1 in two bits; the sum of the inputs is subtracted at the end. Eight rows by sixteen inputs are 32
bytes: byte 4 r + j holds the code of row r and input 4 i + j in bits 2 i. `pack.py` stores them as [superblock of 32
rows][16 inputs][4][32 bytes]. Results equal those of `ternary_lut16.py` bit for bit.

vpdpbusd adds to int32. Without it, products are added as int16 for at most 256 inputs and then widened. AVX2 has enough
registers for 16 rows by four tokens, which share the masked codes; other targets compute each token alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.isa import build_target
from ternrun.runtime.cpu.compile.jit import compiled, record, share
from ternrun.runtime.cpu.compile.lanes import reinterpret, splat, to_float, zero
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar
from ternrun.runtime.cpu.compile.vectors import VecType, i8x32, i16x16, i32x8
from ternrun.runtime.cpu.compile.x86 import add_pairs, dot_bytes, multiply_add_bytes
from ternrun.runtime.cpu.kernels.ternary_sums import emitter

f32 = types.float32
f32x8 = VecType("f", 32, 8)
_emit = emitter(f32x8)
SUPERBLOCK = 32
TILE = 0 if build_target() == "portable" else 4  # tokens of a tile; 0: no tiles


@compiled
def _add_dots(acc: Any, codes: Any, q: Any) -> Any:
    """acc + codes x q with vpdpbusd."""
    return dot_bytes(acc, reinterpret(i32x8, codes), reinterpret(i32x8, q))


@compiled
def _add_products(acc: Any, codes: Any, q: Any) -> Any:
    """acc + codes x q with vpmaddubsw."""
    return acc + multiply_add_bytes(codes, q)


@compiled
def _same(sums: Any) -> Any:
    """The sums themselves."""
    return sums


#: The accumulator type, the function that adds codes times inputs, the function that widens sums to int32, and the
#: number of inputs that cannot overflow.
SUMS, _add, _wide, LONGEST = (
    (i32x8, _add_dots, _same, 1 << 14) if build_target() == "avxvnni" else (i16x16, _add_products, add_pairs, 256)
)


@compiled
def _madd(acc: Any, w: Any, q: Any) -> Any:
    """Add the products of four vectors of eight rows and four inputs."""
    return (
        _add(acc[0], w[0] & 3, q),
        _add(acc[1], w[1] & 3, q),
        _add(acc[2], w[2] & 3, q),
        _add(acc[3], w[3] & 3, q),
    )


@compiled
def _four_inputs(q: int) -> Any:
    """Four inputs, repeated for eight rows."""
    return reinterpret(i8x32, splat(i32x8, load_scalar(types.int32, q)))


@compiled
def _next(w: Any) -> Any:
    """Shift the codes of the next four inputs into place."""
    return (w[0] >> 2, w[1] >> 2, w[2] >> 2, w[3] >> 2)


@compiled
def _run(codes: int, q: int, steps: int) -> Any:
    """The products of 32 rows and 16 * steps inputs as four i32x8; at most LONGEST inputs: 128 products of 2 * 127
    fit int16.

    Two sums for each vector, in turn, because one would make each product wait for the previous one.
    """
    z = zero(SUMS)
    acc, more = (z, z, z, z), (z, z, z, z)
    for i in range(steps):
        at = codes + 128 * i
        w = (load(i8x32, at), load(i8x32, at + 32), load(i8x32, at + 64), load(i8x32, at + 96))
        acc = _madd(acc, w, _four_inputs(q + 16 * i))
        w = _next(w)
        more = _madd(more, w, _four_inputs(q + 16 * i + 4))
        w = _next(w)
        acc = _madd(acc, w, _four_inputs(q + 16 * i + 8))
        more = _madd(more, _next(w), _four_inputs(q + 16 * i + 12))
    return _wide(acc[0] + more[0]), _wide(acc[1] + more[1]), _wide(acc[2] + more[2]), _wide(acc[3] + more[3])


@compiled
def _chunk(codes: int, q: int, inputs: int) -> Any:
    """The products of 32 rows and one chunk of any length as four i32x8."""
    z = zero(i32x8)
    a, b, c, d = z, z, z, z
    steps = (inputs + 15) // 16
    for i in range(0, steps, LONGEST // 16):
        e, f, g, h = _run(codes + 128 * i, q + 16 * i, min(LONGEST // 16, steps - i))
        a, b, c, d = a + e, b + f, c + g, d + h
    return a, b, c, d


@compiled
def _product(args: Any, segment: Any, s: int, prepared: int, t: int) -> None:
    """Compute superblock s of one matrix for token t."""
    n, chunk = args.n, args.chunk
    blocks, width = segment.superblocks, (n + 15) // 16 * 16
    codes, q = segment.codes + 8 * width * s, prepared + args.header + args.token_bytes * t
    z = zero(f32x8)
    a, b, c, d = z, z, z, z
    for k in range((n + chunk - 1) // chunk):
        e, f, g, h = _chunk(codes + 8 * chunk * k, q + chunk * k, min(chunk, n - chunk * k))
        less = splat(i32x8, load_scalar(types.int32, q + width + 4 * k))
        scales = segment.scales + 4 * SUPERBLOCK * (blocks * k + s)
        a = a + to_float(f32x8, e - less) * load(f32x8, scales)
        b = b + to_float(f32x8, f - less) * load(f32x8, scales + 32)
        c = c + to_float(f32x8, g - less) * load(f32x8, scales + 64)
        d = d + to_float(f32x8, h - less) * load(f32x8, scales + 96)
    step, rows, add = (
        splat(f32x8, load_scalar(types.float32, prepared + 4 * t)),
        segment.rows - SUPERBLOCK * s,
        args.add,
    )
    at = args.out + 4 * (args.ldo * t + segment.column + SUPERBLOCK * s)
    _emit(a * step, at, rows, add)
    _emit(b * step, at + 32, rows - 8, add)
    _emit(c * step, at + 64, rows - 16, add)
    _emit(d * step, at + 96, rows - 24, add)


@compiled
def _madd2(acc: Any, codes: Any, q: int) -> Any:
    """Add the products of two vectors of eight rows and four inputs of one token."""
    inputs = _four_inputs(q)
    return _add(acc[0], codes[0], inputs), _add(acc[1], codes[1], inputs)


@compiled
def _madd2x4(acc: Any, w: Any, q: int, stride: int) -> Any:
    """The same for four tokens, `stride` bytes apart; the codes are masked once."""
    codes = (w[0] & 3, w[1] & 3)
    return (
        _madd2(acc[0], codes, q),
        _madd2(acc[1], codes, q + stride),
        _madd2(acc[2], codes, q + 2 * stride),
        _madd2(acc[3], codes, q + 3 * stride),
    )


@compiled
def _next2(w: Any) -> Any:
    """Shift the codes of the next four inputs into place."""
    return w[0] >> 2, w[1] >> 2


@compiled
def _widened(acc: Any, more: Any) -> Any:
    """Add sums, widened to int32."""
    return acc[0] + _wide(more[0]), acc[1] + _wide(more[1])


@compiled
def _run4(codes: int, q: int, stride: int, steps: int) -> Any:
    """The products of 16 rows, 16 * steps inputs (at most LONGEST) and four tokens: two SUMS vectors for each token."""
    z = zero(SUMS)
    acc = ((z, z), (z, z), (z, z), (z, z))
    for i in range(steps):
        w, at = (load(i8x32, codes + 128 * i), load(i8x32, codes + 128 * i + 32)), q + 16 * i
        acc = _madd2x4(acc, w, at, stride)
        w = _next2(w)
        acc = _madd2x4(acc, w, at + 4, stride)
        w = _next2(w)
        acc = _madd2x4(acc, w, at + 8, stride)
        acc = _madd2x4(acc, _next2(w), at + 12, stride)
    return acc


@compiled
def _chunk4(codes: int, q: int, stride: int, inputs: int) -> Any:
    """The products of 16 rows, one chunk of any length and four tokens: two i32x8 for each token."""
    z = zero(i32x8)
    a, b, c, d = (z, z), (z, z), (z, z), (z, z)
    steps = (inputs + 15) // 16
    for i in range(0, steps, LONGEST // 16):
        e, f, g, h = _run4(codes + 128 * i, q + 16 * i, stride, min(LONGEST // 16, steps - i))
        a, b, c, d = _widened(a, e), _widened(b, f), _widened(c, g), _widened(d, h)
    return a, b, c, d


@compiled
def _scaled2(acc: Any, sums: Any, less: int, scales: int) -> Any:
    """acc + (sums - the sum of the inputs) * scales, for 16 rows and one token."""
    off = splat(i32x8, load_scalar(types.int32, less))
    low, high = to_float(f32x8, sums[0] - off), to_float(f32x8, sums[1] - off)
    return acc[0] + low * load(f32x8, scales), acc[1] + high * load(f32x8, scales + 32)


@compiled
def _emit2(args: Any, segment: Any, row: int, acc: Any, prepared: int, t: int) -> None:
    """Store the outputs of 16 rows and one token."""
    step, rows = splat(f32x8, load_scalar(types.float32, prepared + 4 * t)), segment.rows - row
    at = args.out + 4 * (args.ldo * t + segment.column + row)
    _emit(acc[0] * step, at, rows, args.add)
    _emit(acc[1] * step, at + 32, rows - 8, args.add)


@compiled
def _product4(args: Any, segment: Any, s: int, half: int, prepared: int, t: int) -> None:
    """Compute half of superblock s for tokens t to t + 3, with operations in the order of `_product`."""
    n, chunk, stride, blocks = args.n, args.chunk, args.token_bytes, segment.superblocks
    width = (n + 15) // 16 * 16
    codes, q = segment.codes + 8 * width * s + 64 * half, prepared + args.header + stride * t
    z = zero(f32x8)
    a, b, c, d = (z, z), (z, z), (z, z), (z, z)
    for k in range((n + chunk - 1) // chunk):
        e, f, g, h = _chunk4(codes + 8 * chunk * k, q + chunk * k, stride, min(chunk, n - chunk * k))
        less, scales = q + width + 4 * k, segment.scales + 4 * (SUPERBLOCK * (blocks * k + s) + 16 * half)
        a, b = _scaled2(a, e, less, scales), _scaled2(b, f, less + stride, scales)
        c, d = _scaled2(c, g, less + 2 * stride, scales), _scaled2(d, h, less + 3 * stride, scales)
    row = SUPERBLOCK * s + 16 * half
    _emit2(args, segment, row, a, prepared, t)
    _emit2(args, segment, row, b, prepared, t + 1)
    _emit2(args, segment, row, c, prepared, t + 2)
    _emit2(args, segment, row, d, prepared, t + 3)


@compiled
def ternary(args: Any, tid: int, nt: int) -> int:
    """Compute up to three matrices that read the same input. A matrix with one scale a row has one chunk."""
    tokens, prepared = load_scalar(types.int64, args.count), args.prepared
    if tokens == 1:
        prepared += args.prepared_stride * tid
    for m in range(args.matrices):
        segment = record(args, m)
        first, last = share(segment.superblocks, tid, nt)
        for s in range(first, last):
            tiled = tokens // TILE * TILE if TILE else 0
            for t in range(0, tiled, 4):
                _product4(args, segment, s, 0, prepared, t)
                _product4(args, segment, s, 1, prepared, t)
            for t in range(tiled, tokens):
                _product(args, segment, s, prepared, t)
    return 0


def build(entry: str) -> Callable[..., Any]:
    """Entries: any (one scale a row, or one a chunk)."""
    return {"any": ternary}[entry]
