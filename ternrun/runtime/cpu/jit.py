"""The one way kernel code is compiled, and the calling convention of a kernel.

A kernel is `int64 kernel(int64 args, int64 tid, int64 nt)`: the address of its arguments (eight-byte words), the number
of the calling thread and how many threads call it at once; each does its share. It returns 0.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from numba import types

from ternrun.runtime.cpu.simd import get
from ternrun.runtime.cpu.source import Compiled

#: Compile without bounds, without Python errors (a division by zero yields inf or nan) and without fast-math.
compiled = Compiled
#: The same for a function that is large and called from several places: it stays one, and the others become part of
#: those that call them.
apart = partial(Compiled, apart=True)


@compiled
def word(args: int, index: int) -> Any:
    """Argument `index` as an int64 (an address, a count)."""
    return get(types.int64, args + 8 * index)


@compiled
def number(args: int, index: int) -> Any:
    """Argument `index` as a float32; stored as a double."""
    return types.float32(get(types.float64, args + 8 * index))


@compiled
def share(n: int, tid: int, nt: int) -> Any:
    """First and end of the part of range(n) that falls to thread `tid`."""
    return n * tid // nt, n * (tid + 1) // nt
