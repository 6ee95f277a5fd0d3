"""Run a program in the thread pool: every thread runs the same kernel calls, with barriers between dependent ones.

The pool's memory (`layout.THREAD_POOL`) holds the program and the cells of the barrier, each on a cache line of its
own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.compile.atomic import (
    atomic_add,
    atomic_exchange,
    atomic_load,
    call,
    call_yield,
    spin_loop_hint,
)
from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.memory_access import load_scalar, store_scalar
from ternrun.runtime.cpu.compile.x86 import cycles

ARRIVED, PASSED, LAUNCHES, PARKED, PROGRAM, COUNT, STATE, YIELD, PROFILE, STOP = (
    layout.THREAD_POOL[name]
    for name in (
        "arrived", "passed", "launches", "parked", "program", "count", "state", "yield", "profile", "stop",
    )
)  # fmt: skip
RECORD, T, STEPS_LEFT = layout.RECORD, layout.STATE["tokens"], layout.STATE["steps_left"]
SPINS_BEFORE_YIELD = 400
SPINS_BEFORE_PARK = 20000


@compiled
def barrier(pool: int, nt: int) -> None:
    """Wait until all `nt` threads have arrived.

    Yields the CPU from time to time, in case the others are not running.
    """
    if nt == 1:
        return
    passed = atomic_load(pool + PASSED)
    if atomic_add(pool + ARRIVED, 1) == nt - 1:
        atomic_exchange(pool + ARRIVED, 0)
        atomic_add(pool + PASSED, 1)
        return
    spins = 0
    while atomic_load(pool + PASSED) == passed:
        spin_loop_hint()
        spins += 1
        if spins == SPINS_BEFORE_YIELD:
            call_yield(load_scalar(types.int64, pool + YIELD))
            spins = 0


@compiled
def execute(pool: int, tid: int, nt: int) -> None:
    """Run the pool's program as thread `tid`, and again for each greedy step that remains."""
    state = load_scalar(types.int64, pool + STATE)
    execute_once(pool, tid, nt)
    while load_scalar(types.int64, state + STEPS_LEFT):  # written before the last barrier, by thread 0 only
        execute_once(pool, tid, nt)


@compiled
def execute_once(pool: int, tid: int, nt: int) -> None:
    """Run the program's calls in order. Thread 0 adds the cycles of each call to the profile, if there is one."""
    record = load_scalar(types.int64, pool + PROGRAM)
    tokens = load_scalar(types.int64, load_scalar(types.int64, pool + STATE) + T)
    profile = load_scalar(types.int64, pool + PROFILE)
    before = cycles()
    for i in range(load_scalar(types.int64, pool + COUNT)):
        call(load_scalar(types.int64, record), record + 16, tid, nt)
        if tokens >= load_scalar(types.int64, record + 8):
            barrier(pool, nt)
        if profile and tid == 0:
            now = cycles()
            store_scalar(profile + 8 * i, load_scalar(types.int64, profile + 8 * i) + now - before)
            before = now
        record += RECORD


def build(entry: str) -> Callable[..., Any]:
    """Entries: `run` (the caller), `launch` (start a run), `work` (a worker, until it parks or stops)."""
    return {"run": _run, "launch": _launch, "work": _work}[entry]


@compiled
def _run(pool: int, woken: int, nt: int) -> int:
    """Launch a program and run it.

    If workers are parked, runs nothing and returns what `launch` returns. The caller wakes them and calls again with
    `woken` set.
    """
    if not woken:
        parked = _launch(pool, 0, nt)
        if parked:
            return parked  # type: ignore[no-any-return]
    execute(pool, 0, nt)
    barrier(pool, nt)
    return 0


@compiled
def _launch(pool: int, tid: int, nt: int) -> int:
    """Start a run; returns a bit for each of the first 62 workers that is parked and must be woken."""
    atomic_add(pool + LAUNCHES, 1)
    parked = 0
    for worker in range(1, nt):
        if atomic_exchange(pool + PARKED + 64 * worker, 0):
            parked |= 1 << worker
    return parked


@compiled
def _work(pool: int, tid: int, nt: int) -> int:
    """Run the launches after the one in this worker's cell; returns 1 when the worker parks, 0 when the pool is
    closed.
    """
    cell = pool + PARKED + 64 * tid
    done = load_scalar(types.int64, cell + 8)
    while True:
        spins = 0
        while atomic_load(pool + LAUNCHES) == done:
            spin_loop_hint()
            spins += 1
            if spins == SPINS_BEFORE_PARK:
                atomic_exchange(cell, 1)
                # A launch in between has either seen the flag, and will wake this worker, or is seen here.
                if atomic_load(pool + LAUNCHES) == done or not atomic_exchange(cell, 0):
                    return 1
                break
        done += 1
        store_scalar(cell + 8, done)
        if load_scalar(types.int64, pool + STOP):
            return 0
        execute(pool, tid, nt)
        barrier(pool, nt)
