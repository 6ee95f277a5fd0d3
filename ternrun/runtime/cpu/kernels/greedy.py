"""Greedy decoding of several steps in one call: each sequence's largest logit is its next token.

Between two steps Python needs 20 to 90 microseconds, more if the step has evicted its code from the caches: a third of
a step of five million parameters, a fourteenth of one of 125 million.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.compile.arithmetic import fma, largest, maximum, total
from ternrun.runtime.cpu.compile.jit import compiled, share
from ternrun.runtime.cpu.compile.lanes import splat, zero
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar, store_scalar
from ternrun.runtime.cpu.compile.vectors import f32x16

f32 = types.float32
TOKENS, IDS, POSITIONS, STEPS_LEFT, GENERATED, STOP_IDS, N_STOP_IDS = (
    layout.STATE[name] for name in ("tokens", "ids", "positions", "steps_left", "generated", "stop_ids", "n_stop_ids")
)


def build(entry: str) -> Callable[..., Any]:
    """Entries: best, feed."""
    return {"best": _best, "feed": _feed}[entry]


@compiled
def _best(args: Any, tid: int, nt: int) -> int:
    """best[i] = argmax of n logits, the lowest id among equals; -1 if a logit is not finite.

    Does nothing in the last step of a call, whose logits Python reads.
    """
    state, n = args.state, args.n
    if not load_scalar(types.int64, state + STEPS_LEFT):
        return 0
    first, last = share(load_scalar(types.int64, state + TOKENS), tid, nt)
    for row in range(first, last):
        store_scalar(args.best + args.best_stride * row, _argmax(args.logits + 4 * args.ldl * row, n))
    return 0


@compiled
def _argmax(logits: int, n: int) -> int:
    """The index of the largest of n floats; -1 if one is not finite."""
    peak, check = splat(f32x16, f32(-math.inf)), zero(f32x16)
    whole = n // 16 * 16
    for i in range(0, whole, 16):
        value = load(f32x16, logits + 4 * i)
        peak, check = maximum(peak, value), fma(value, zero(f32x16), check)  # 0 * inf and 0 * NaN are NaN
    most, sane = largest(peak), total(check)
    for i in range(whole, n):
        one = load_scalar(f32, logits + 4 * i)
        most, sane = max(most, one), sane + one * f32(0.0)
    if sane != f32(0.0):
        return -1
    i = 0
    while i < whole and largest(load(f32x16, logits + 4 * i)) < most:
        i += 16
    while load_scalar(f32, logits + 4 * i) < most:
        i += 1
    return i


@compiled
def _feed(args: Any, tid: int, nt: int) -> int:
    """Make the best tokens the inputs of the next step, one position further, and record them.

    A stop token ends the call after this step. A row without a best token ends the call, and nothing is recorded.
    """
    state, best, stride = args.state, args.best, args.best_stride
    left, n = load_scalar(types.int64, state + STEPS_LEFT), load_scalar(types.int64, state + TOKENS)
    if tid or not left:
        return 0
    for i in range(n):
        if load_scalar(types.int64, best + stride * i) < 0:
            store_scalar(state + STEPS_LEFT, types.int64(0))
            return 0
    generated, ids, positions = (load_scalar(types.int64, state + GENERATED), load_scalar(types.int64, state + IDS),
                            load_scalar(types.int64, state + POSITIONS))  # fmt: skip
    for i in range(n):
        token = types.int32(load_scalar(types.int64, best + stride * i))
        store_scalar(generated + 4 * i, token)
        store_scalar(ids + 4 * i, token)
        store_scalar(positions + 4 * i, types.int32(load_scalar(types.int32, positions + 4 * i) + 1))
        for s in range(load_scalar(types.int64, state + N_STOP_IDS)):
            if load_scalar(types.int32, load_scalar(types.int64, state + STOP_IDS) + 4 * s) == token:
                left = 1
    store_scalar(state + GENERATED, generated + 4 * n)
    store_scalar(state + STEPS_LEFT, types.int64(left - 1))
    return 0
