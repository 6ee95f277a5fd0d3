"""The arithmetic of attention for one, two or four queries at a time. Tuples hold one item for each query."""

from __future__ import annotations

from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.arithmetic import fma
from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.lanes import splat
from ternrun.runtime.cpu.compile.memory_access import load_scalar
from ternrun.runtime.cpu.compile.vectors import f32x16

#: Offsets in a query's description in scratch: its address, position, output address, inverse sum of weights and token.
QUERY, POSITION, OUT, INVERSE, TOKEN, DESCRIBED = 0, 8, 16, 24, 32, 40


@compiled
def number_at(address: int) -> Any:
    """A float32 in all lanes."""
    return splat(f32x16, load_scalar(types.float32, address))


@compiled
def _accumulate1(acc: Any, keys: Any, q: Any, at: int) -> Any:
    """Add one element of 16 keys times that of each query."""
    return (fma(keys, number_at(q[0] + at), acc[0]),)


@compiled
def _accumulate2(acc: Any, keys: Any, q: Any, at: int) -> Any:
    """The same for two queries."""
    return fma(keys, number_at(q[0] + at), acc[0]), fma(keys, number_at(q[1] + at), acc[1])


@compiled
def _accumulate4(acc: Any, keys: Any, q: Any, at: int) -> Any:
    """The same for four queries."""
    return (
        fma(keys, number_at(q[0] + at), acc[0]),
        fma(keys, number_at(q[1] + at), acc[1]),
        fma(keys, number_at(q[2] + at), acc[2]),
        fma(keys, number_at(q[3] + at), acc[3]),
    )


@compiled
def blend_one(acc: Any, p: int, v: Any) -> Any:
    """Add a query's weight times 64 elements of a value."""
    w = number_at(p)
    return fma(w, v[0], acc[0]), fma(w, v[1], acc[1]), fma(w, v[2], acc[2]), fma(w, v[3], acc[3])


@compiled
def _blend1(acc: Any, p: int, row: int, v: Any) -> Any:
    """The same for the queries of a tile, whose weights are `row` bytes apart."""
    return (blend_one(acc[0], p, v),)


@compiled
def _blend2(acc: Any, p: int, row: int, v: Any) -> Any:
    """The same for two queries."""
    return blend_one(acc[0], p, v), blend_one(acc[1], p + row, v)


@compiled
def _blend4(acc: Any, p: int, row: int, v: Any) -> Any:
    """The same for four queries."""
    return (
        blend_one(acc[0], p, v),
        blend_one(acc[1], p + row, v),
        blend_one(acc[2], p + 2 * row, v),
        blend_one(acc[3], p + 3 * row, v),
    )


@compiled
def _sum(a: Any, b: Any, c: Any, d: Any) -> Any:
    """The sum of four vectors."""
    return (a + b) + (c + d)


@compiled
def _sums1(a: Any, b: Any, c: Any, d: Any) -> Any:
    """The total of the four sums of each query."""
    return (_sum(a[0], b[0], c[0], d[0]),)


@compiled
def _sums2(a: Any, b: Any, c: Any, d: Any) -> Any:
    """The same for two queries."""
    return _sum(a[0], b[0], c[0], d[0]), _sum(a[1], b[1], c[1], d[1])


@compiled
def _sums4(a: Any, b: Any, c: Any, d: Any) -> Any:
    """The same for four queries."""
    return (
        _sum(a[0], b[0], c[0], d[0]),
        _sum(a[1], b[1], c[1], d[1]),
        _sum(a[2], b[2], c[2], d[2]),
        _sum(a[3], b[3], c[3], d[3]),
    )


@compiled
def _add_scaled1(acc: Any, sums: Any, step: Any) -> Any:
    """Add the sums of a group of elements, times the step of each of the 16 keys."""
    return (fma(sums[0], step, acc[0]),)


@compiled
def _add_scaled2(acc: Any, sums: Any, step: Any) -> Any:
    """The same for two queries."""
    return fma(sums[0], step, acc[0]), fma(sums[1], step, acc[1])


@compiled
def _add_scaled4(acc: Any, sums: Any, step: Any) -> Any:
    """The same for four queries."""
    return (
        fma(sums[0], step, acc[0]),
        fma(sums[1], step, acc[1]),
        fma(sums[2], step, acc[2]),
        fma(sums[3], step, acc[3]),
    )


@compiled
def _at(at: int, i: int) -> Any:
    """The address of query i."""
    return load_scalar(types.int64, at + DESCRIBED * i)


@compiled
def _queries1(at: int) -> Any:
    """The addresses of the queries."""
    return (_at(at, 0),)


@compiled
def _queries2(at: int) -> Any:
    """The same for two queries."""
    return _at(at, 0), _at(at, 1)


@compiled
def _queries4(at: int) -> Any:
    """The same for four queries."""
    return _at(at, 0), _at(at, 1), _at(at, 2), _at(at, 3)


@compiled
def _broadcast1(value: Any) -> Any:
    """A tuple with a value for each query."""
    return (value,)


@compiled
def _broadcast2(value: Any) -> Any:
    """The same for two queries."""
    return value, value


@compiled
def _broadcast4(value: Any) -> Any:
    """The same for four queries."""
    return value, value, value, value


#: The functions for each number of queries.
TILES = {
    1: (_accumulate1, _blend1, _sums1, _queries1, _broadcast1, _add_scaled1),
    2: (_accumulate2, _blend2, _sums2, _queries2, _broadcast2, _add_scaled2),
    4: (_accumulate4, _blend4, _sums4, _queries4, _broadcast4, _add_scaled4),
}
