"""Shapes of values during compilation: a value is one number, a tuple of values, or a constant.

A shape is a numba type, a tuple of shapes, or a `Constant` that is not a number. LLVM sees only the numbers, in order.
"""

from __future__ import annotations

from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.operations import Constant, Item, Value


def shape_of(item: Item) -> Any:
    """The shape of an item."""
    if isinstance(item, Value):
        return item.kind
    return item if isinstance(item, Constant) else tuple(map(shape_of, item))


def kinds_of(shape: Any) -> list[types.Type]:
    """The numba types of all values in a shape, in order."""
    if isinstance(shape, Constant):
        return []
    return [shape] if isinstance(shape, types.Type) else [kind for part in shape for kind in kinds_of(part)]


def flat(item: Item) -> list[Any]:
    """The LLVM values in an item, in order."""
    if isinstance(item, Constant):
        return []
    return [item.code] if isinstance(item, Value) else [code for part in item for code in flat(part)]


def shaped(shape: Any, codes: Any) -> Item:
    """Build an item of a shape from LLVM values in order."""
    if isinstance(shape, Constant):
        return shape
    return Value(shape, next(codes)) if isinstance(shape, types.Type) else tuple(shaped(part, codes) for part in shape)
