"""Cache of results that depend only on constant operands, computed once and reused by later runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ternrun.onnx.operators.table import Array

T = TypeVar("T")


class ConstantCache(Generic[T]):
    """Calls `make`, and reuses its last result while the operands are the same read-only arrays.

    Constants are read-only, but so are slices and expansions of them: only the same array object means the same
    weights. Any number of threads may call it at the same time.
    """

    def __init__(self, make: Callable[..., T]) -> None:
        self._make = make
        # Threads share this: each call reads it once and writes it once.
        self._held: tuple[tuple[Array | None, ...], T] | None = None

    def __call__(self, *operands: Array | None) -> T:
        """The result of `make` for these operands; None is an omitted operand."""
        if not read_only(*operands):  # an operand computed in this run can change
            return self._make(*operands)
        held = self._held
        if held is None or any(a is not b for a, b in zip(held[0], operands, strict=True)):
            held = self._held = (operands, self._make(*operands))
        return held[1]


def read_only(*operands: Array | None) -> bool:
    """Whether all operands are read-only."""
    return not any(a is not None and a.flags.writeable for a in operands)
