"""The one way kernel code is compiled, and the calling convention of a kernel.

A kernel is `int64 kernel(int64 args, int64 tid, int64 nt)`: the address of its arguments (eight-byte words), the number
of the calling thread, and how many threads call it at once; each does its share. It returns 0. Python code of a kernel
reads an argument as `args.name`; the names are those of the kernel's signature (`signatures.py`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ternrun.runtime.cpu.compile.arguments import record as record
from ternrun.runtime.cpu.compile.source import KernelFunction

#: Compile without bounds, without Python errors (a division by zero yields inf or nan) and without fast-math.
compiled = KernelFunction
#: The same for a function that is large and called from several places: it stays one, and the others become part of
#: those that call them.
noinline = partial(KernelFunction, noinline=True)


@compiled
def share(n: int, tid: int, nt: int) -> Any:
    """First and end of the part of range(n) that falls to thread `tid`."""
    return n * tid // nt, n * (tid + 1) // nt
