"""What is made of constant operands once, and kept for the runs that follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ternrun.onnx.operators.table import Array

T = TypeVar("T")


class ConstantCache(Generic[T]):
    """`make`, whose last result is kept as long as its operands are the same arrays and nobody can write to them.

    Constants are read-only, but so are slices of them and what was expanded: only the same array is the same weights.
    Any number of threads may call it at once.
    """

    def __init__(self, make: Callable[..., T]) -> None:
        self._make = make
        self._held: tuple[tuple[Array | None, ...], T] | None = None  # read once and written once: threads share it

    def __call__(self, *operands: Array | None) -> T:
        """What `make` makes of these; None is an operand that is left out."""
        if not read_only(*operands):  # a result of this run
            return self._make(*operands)
        held = self._held
        if held is None or any(a is not b for a, b in zip(held[0], operands, strict=True)):
            held = self._held = (operands, self._make(*operands))
        return held[1]


def read_only(*operands: Array | None) -> bool:
    """Whether nobody can write to any of them."""
    return not any(a is not None and a.flags.writeable for a in operands)
