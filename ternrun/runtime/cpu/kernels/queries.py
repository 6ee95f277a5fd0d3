"""Attention's arithmetic for one, two or four queries at once: a tuple holds what each of them has."""

from __future__ import annotations

from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.simd import f32x16, fma, load_scalar, splat

#: Of a query, in scratch: where it is, its position, where its output goes, the inverse of its weights' sum, its token.
QUERY, POSITION, OUT, INVERSE, TOKEN, DESCRIBED = 0, 8, 16, 24, 32, 40  # of a query: what scratch begins with


@compiled
def number_at(address: int) -> Any:
    """A float32 in all lanes."""
    return splat(f32x16, load_scalar(types.float32, address))


@compiled
def _meet1(acc: Any, keys: Any, q: Any, at: int) -> Any:
    """One element of 16 keys against that of each query."""
    return (fma(keys, number_at(q[0] + at), acc[0]),)


@compiled
def _meet2(acc: Any, keys: Any, q: Any, at: int) -> Any:
    return fma(keys, number_at(q[0] + at), acc[0]), fma(keys, number_at(q[1] + at), acc[1])


@compiled
def _meet4(acc: Any, keys: Any, q: Any, at: int) -> Any:
    return (
        fma(keys, number_at(q[0] + at), acc[0]),
        fma(keys, number_at(q[1] + at), acc[1]),
        fma(keys, number_at(q[2] + at), acc[2]),
        fma(keys, number_at(q[3] + at), acc[3]),
    )


@compiled
def blend_one(acc: Any, p: int, v: Any) -> Any:
    """One query's weight times 64 elements of a value."""
    w = number_at(p)
    return fma(w, v[0], acc[0]), fma(w, v[1], acc[1]), fma(w, v[2], acc[2]), fma(w, v[3], acc[3])


@compiled
def _blend1(acc: Any, p: int, row: int, v: Any) -> Any:
    return (blend_one(acc[0], p, v),)


@compiled
def _blend2(acc: Any, p: int, row: int, v: Any) -> Any:
    return blend_one(acc[0], p, v), blend_one(acc[1], p + row, v)


@compiled
def _blend4(acc: Any, p: int, row: int, v: Any) -> Any:
    return (
        blend_one(acc[0], p, v),
        blend_one(acc[1], p + row, v),
        blend_one(acc[2], p + 2 * row, v),
        blend_one(acc[3], p + 3 * row, v),
    )


@compiled
def _sum(a: Any, b: Any, c: Any, d: Any) -> Any:
    return (a + b) + (c + d)


@compiled
def _sums1(a: Any, b: Any, c: Any, d: Any) -> Any:
    return (_sum(a[0], b[0], c[0], d[0]),)


@compiled
def _sums2(a: Any, b: Any, c: Any, d: Any) -> Any:
    return _sum(a[0], b[0], c[0], d[0]), _sum(a[1], b[1], c[1], d[1])


@compiled
def _sums4(a: Any, b: Any, c: Any, d: Any) -> Any:
    return (
        _sum(a[0], b[0], c[0], d[0]),
        _sum(a[1], b[1], c[1], d[1]),
        _sum(a[2], b[2], c[2], d[2]),
        _sum(a[3], b[3], c[3], d[3]),
    )


@compiled
def _at(at: int, i: int) -> Any:
    return load_scalar(types.int64, at + DESCRIBED * i)


@compiled
def _queries1(at: int) -> Any:
    return (_at(at, 0),)


@compiled
def _queries2(at: int) -> Any:
    return _at(at, 0), _at(at, 1)


@compiled
def _queries4(at: int) -> Any:
    return _at(at, 0), _at(at, 1), _at(at, 2), _at(at, 3)


@compiled
def _same1(value: Any) -> Any:
    return (value,)


@compiled
def _same2(value: Any) -> Any:
    return value, value


@compiled
def _same4(value: Any) -> Any:
    return value, value, value, value


#: What is done for so many queries at once.
TILES = {
    1: (_meet1, _blend1, _sums1, _queries1, _same1),
    2: (_meet2, _blend2, _sums2, _queries2, _same2),
    4: (_meet4, _blend4, _sums4, _queries4, _same4),
}
