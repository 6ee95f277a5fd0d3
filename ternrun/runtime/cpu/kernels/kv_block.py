"""The layout of a KV cache block: 16 tokens of one layer; for each key/value head K, then V, then the steps of both.

K is [element][16 tokens], so that a vector of scores needs no sum across lanes. V is [16 tokens][elements padded to
16]. Elements are float32, float16 or int8. An int8 key has a float32 step for every 16 elements, [group][16 tokens], so
that a large element costs only its neighbors precision. An int8 value has one step.
"""

from __future__ import annotations

from typing import Any

from numba import types

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.compile.arithmetic import fma, largest, magnitude, maximum, round_even, total
from ternrun.runtime.cpu.compile.half import f16_bits, load_f16
from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.lanes import lane, narrow, splat, to_float, to_int, widen, zero
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, store, store_scalar
from ternrun.runtime.cpu.compile.vectors import f32x16, i8x16, i32x16

f32 = types.float32
BLOCK, GROUP = layout.KV_BLOCK, layout.KEY_GROUP
POSITIONS, SLOTS, TABLES, TABLE_STRIDE = (
    layout.STATE[name] for name in ("positions", "slots", "tables", "table_stride")
)


@compiled
def block_of(state: int, t: int, position: int) -> Any:
    """The number of the cache block that holds `position` of token t's sequence."""
    slot = types.int64(load_scalar(types.int32, load_scalar(types.int64, state + SLOTS) + 4 * t))
    row = load_scalar(types.int64, state + TABLES) + 4 * slot * load_scalar(types.int64, state + TABLE_STRIDE)
    return types.int64(load_scalar(types.int32, row + 4 * (position // BLOCK)))


@compiled
def position_of(state: int, t: int) -> Any:
    """The position of token t in its sequence."""
    return types.int64(load_scalar(types.int32, load_scalar(types.int64, state + POSITIONS) + 4 * t))


@compiled
def run_end(state: int, window: int, t: int, tokens: int) -> Any:
    """The end of the run of tokens from t on that are consecutive in one sequence; one token if `window` is set."""
    slots, end = load_scalar(types.int64, state + SLOTS), t + 1
    while (
        end < tokens
        and not window
        and load_scalar(types.int32, slots + 4 * end) == load_scalar(types.int32, slots + 4 * t)
        and position_of(state, end) == position_of(state, end - 1) + 1
    ):
        end += 1
    return end


@compiled
def key_steps_bytes(dim: int) -> int:
    """Bytes of the steps of one head's int8 keys in a block."""
    return 4 * BLOCK * ((dim + GROUP - 1) // GROUP)


@compiled
def _load_f32(address: int) -> Any:
    """Load sixteen float32."""
    return load(f32x16, address)


@compiled
def _load_int8(address: int) -> Any:
    """Load sixteen int8 as f32x16."""
    return to_float(f32x16, widen(i32x16, load(i8x16, address)))


def _make_write(size: int, bits_of: Any) -> Any:
    """A function that writes elements of `size` bytes, converted by `bits_of`."""

    def write(x: int, n: int, at: int, stride: int, step: int, group: int) -> None:
        """Store n floats as elements that are `stride` bytes apart."""
        for i in range(0, n, 16):
            bits = bits_of(load(f32x16, x + 4 * i))
            if stride == size:
                store(at + size * i, bits)
            else:
                for j in range(min(16, n - i)):
                    store_scalar(at + stride * (i + j), lane(bits, j))

    return compiled(write)


@compiled
def _same(value: Any) -> Any:
    """The value itself."""
    return value


@compiled
def _write_int8(x: int, n: int, at: int, stride: int, step: int, group: int) -> None:
    """Store n floats (padded with zeros to a multiple of 16) as int8 elements, with a step for each `group` of them."""
    for first in range(0, n, group):
        to = step + 4 * BLOCK * (first // group)
        _write_group(x + 4 * first, min(group, n - first), at + stride * first, stride, to)


@compiled
def _write_group(x: int, n: int, at: int, stride: int, step: int) -> None:
    """Store n floats as int8 elements `stride` bytes apart, and their step.

    step = max|x| / 127. The step is NaN if a value is not finite, because int8 has no such value.
    """
    peak, check = zero(f32x16), zero(f32x16)
    for i in range(0, n, 16):
        v = load(f32x16, x + 4 * i)
        peak, check = maximum(peak, magnitude(v)), fma(v, zero(f32x16), check)  # 0 * inf and 0 * NaN are NaN
    unit = max(largest(peak), f32(1e-30)) / f32(127.0)
    store_scalar(step, unit + total(check))
    inverse = splat(f32x16, f32(1.0) / unit)
    for i in range(0, n, 16):
        codes = narrow(i8x16, to_int(i32x16, round_even(load(f32x16, x + 4 * i) * inverse)))
        if stride == 1:
            store(at + i, codes)
        else:
            for j in range(min(16, n - i)):
                store_scalar(at + stride * (i + j), lane(codes, j))


#: Load sixteen elements from an address as f32x16.
READ = {"f32": _load_f32, "f16": load_f16, "int8": _load_int8}
#: f(floats, count, address, stride in bytes, address of the first step, elements of a step) that stores elements.
WRITE = {"f32": _make_write(4, _same), "f16": _make_write(2, f16_bits), "int8": _write_int8}
