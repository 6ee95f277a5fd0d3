"""The step itself: every worker runs the same list of kernel calls, with a barrier between those that depend on each
other.

The team's memory (`layout.TEAM`) holds the program to run and the cells of the barrier, each on its own cache line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.compile.atomic import atomic_add, atomic_exchange, atomic_load, call, call_yield, relax
from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.simd import get, put
from ternrun.runtime.cpu.compile.x86 import cycles

TEAM = layout.TEAM
ARRIVED, PASSED, GENERATION, PARKED = TEAM["arrived"], TEAM["passed"], TEAM["generation"], TEAM["parked"]
PROGRAM, COUNT, STATE, YIELD, PROFILE, STOP = (
    TEAM["program"], TEAM["count"], TEAM["state"], TEAM["yield"], TEAM["profile"], TEAM["stop"],
)  # fmt: skip
RECORD, T, LEFT = layout.RECORD, layout.STATE["tokens"], layout.STATE["left"]
SPINS_BEFORE_YIELD = 400
SPINS_BEFORE_PARK = 20000


@compiled
def barrier(team: int, nt: int) -> None:
    """Wait until all `nt` threads are here; yields the CPU now and then in case the others have none."""
    if nt == 1:
        return
    passed = atomic_load(team + PASSED)
    if atomic_add(team + ARRIVED, 1) == nt - 1:
        atomic_exchange(team + ARRIVED, 0)
        atomic_add(team + PASSED, 1)
        return
    spins = 0
    while atomic_load(team + PASSED) == passed:
        relax()
        spins += 1
        if spins == SPINS_BEFORE_YIELD:
            call_yield(get(types.int64, team + YIELD))
            spins = 0


@compiled
def execute(team: int, tid: int, nt: int) -> None:
    """Run the team's program as thread `tid`, as often as its last call leaves steps to do."""
    state = get(types.int64, team + STATE)
    execute_once(team, tid, nt)
    while get(types.int64, state + LEFT):  # written before the last barrier, and by thread 0 alone
        execute_once(team, tid, nt)


@compiled
def execute_once(team: int, tid: int, nt: int) -> None:
    """The program's calls in order; thread 0 adds each record's cycles to the profile, if there is one."""
    record = get(types.int64, team + PROGRAM)
    tokens = get(types.int64, get(types.int64, team + STATE) + T)
    profile = get(types.int64, team + PROFILE)
    before = cycles()
    for i in range(get(types.int64, team + COUNT)):
        call(get(types.int64, record), record + 16, tid, nt)
        if tokens >= get(types.int64, record + 8):
            barrier(team, nt)
        if profile and tid == 0:
            now = cycles()
            put(profile + 8 * i, get(types.int64, profile + 8 * i) + now - before)
            before = now
        record += RECORD


def build(entry: str) -> Callable[..., Any]:
    """Entries: `lead` (the caller), `post` (begin a generation), `work` (a worker, until it parks or stops)."""
    return {"lead": _lead, "post": _post, "work": _work}[entry]


@compiled
def _lead(team: int, woken: int, nt: int) -> int:
    """Begin a generation and run it. Where workers are parked, nothing is run: returns what `post` does, and is to be
    called again, `woken`, when they have been woken."""
    if not woken:
        parked = _post(team, 0, nt)
        if parked:
            return parked  # type: ignore[no-any-return]
    execute(team, 0, nt)
    barrier(team, nt)
    return 0


@compiled
def _post(team: int, tid: int, nt: int) -> int:
    """Start a generation; returns a bit for each of the first 62 workers that is parked and must be woken."""
    atomic_add(team + GENERATION, 1)
    parked = 0
    for worker in range(1, nt):
        if atomic_exchange(team + PARKED + 64 * worker, 0):
            parked |= 1 << worker
    return parked


@compiled
def _work(team: int, tid: int, nt: int) -> int:
    """Run generations after the one in this worker's cell; returns 1 to be parked, 0 when the team is closed."""
    cell = team + PARKED + 64 * tid
    done = get(types.int64, cell + 8)
    while True:
        spins = 0
        while atomic_load(team + GENERATION) == done:
            relax()
            spins += 1
            if spins == SPINS_BEFORE_PARK:
                atomic_exchange(cell, 1)
                # a generation begun in between either saw the flag (and will wake us) or is seen here
                if atomic_load(team + GENERATION) == done or not atomic_exchange(cell, 0):
                    return 1
                break
        done += 1
        put(cell + 8, done)
        if get(types.int64, team + STOP):
            return 0
        execute(team, tid, nt)
        barrier(team, nt)
