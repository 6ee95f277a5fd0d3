"""The decorators that mark kernel code, and the calling convention of kernels.

A kernel is `int64 kernel(int64 args, int64 tid, int64 nt)`. `args` is the address of its arguments (eight-byte words),
`tid` is the number of the calling thread, and `nt` is the number of threads that call the kernel at the same time; each
does its share of the work. A kernel returns 0. Kernel code reads an argument as `args.name`; `signatures.py` declares
the names.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ternrun.runtime.cpu.compile.arguments import record as record
from ternrun.runtime.cpu.compile.source import KernelFunction

#: Compile without bounds checks, without Python errors (a division by zero yields inf or nan) and without fast-math.
compiled = KernelFunction
#: The same for a large function with several callers: it is compiled once, while others are inlined into callers.
noinline = partial(KernelFunction, noinline=True)


@compiled
def share(n: int, tid: int, nt: int) -> Any:
    """The first and the end index of thread `tid`'s part of range(n)."""
    return n * tid // nt, n * (tid + 1) // nt
