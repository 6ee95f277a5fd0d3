"""Check T9 tensors that are used in place: every word is verified once, before a product reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu.compile.arithmetic import total
from ternrun.runtime.cpu.compile.atomic import atomic_add
from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.lanes import zero
from ternrun.runtime.cpu.compile.memory_access import load, store_scalar
from ternrun.runtime.cpu.compile.vectors import i16x32
from ternrun.runtime.cpu.compile.x86 import lookup

ROW = 256  # bytes of one word of 128 rows
ZERO_DIGIT = 1


@compiled
def _forbid(digits: int, to: int) -> None:
    """Fill a table of 32 int16: 1 for an invalid index, otherwise 0.

    An index is valid if it is at most 26 and its digits after the first `digits` are those of zero weights.
    """
    for index in range(32):
        wrong = index > 26
        for j in range(max(digits, 0), 3):
            power = 9 if j == 0 else (3 if j == 1 else 1)
            wrong = wrong or index // power % 3 != ZERO_DIGIT
        store_scalar(to + 2 * index, types.int16(wrong))


@compiled
def _faults(at: int, tables: int, bad: Any) -> Any:
    """OR the faults of 32 words into `bad`: the table entry of each of the three indices (vpermw), and the top bit."""
    w = load(i16x32, at)
    bad = bad | lookup(w, load(i16x32, tables)) | lookup(w >> 5, load(i16x32, tables + 64))
    return bad | lookup(w >> 10, load(i16x32, tables + 128)) | (w >> 15)


def build(entry: str) -> Callable[..., Any]:
    """Entries: lut16 (AVX-512 BW)."""
    return {"lut16": _lut16}[entry]


@compiled
def _lut16(args: Any, tid: int, nt: int) -> int:
    """Set status[0] if a word is not ternary. status[1] counts the parts taken so far.

    A part is a superblock of one chunk.
    """
    codes, blocks, n, chunk = args.codes, args.superblocks, args.n, args.chunk
    full = args.scratch + args.scratch_stride * tid
    last, status, words = full + 192, args.status, (chunk + 8) // 9
    for k in range(3):
        _forbid(3, full + 64 * k)
    bad, part = zero(i16x32), atomic_add(status + 8, 1)
    while part < blocks * ((n + chunk - 1) // chunk):
        start = part // blocks * chunk
        inputs = min(chunk, n - start)
        count = (inputs + 8) // 9
        at = codes + ROW * (words * blocks * (part // blocks) + count * (part % blocks))
        for k in range(3):
            _forbid(inputs - 9 * (count - 1) - 3 * k, last + 64 * k)
        for i in range(count):
            tables = last if i == count - 1 else full
            for j in range(0, ROW, 64):
                bad = _faults(at + ROW * i + j, tables, bad)
        part = atomic_add(status + 8, 1)
    if total(bad & 1):
        store_scalar(status, types.int64(1))
    return 0
