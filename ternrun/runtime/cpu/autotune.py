"""Which instruction set multiplies ternary weights fastest on this CPU: measured once, where it has several.

A CPU with AVX-512 can look sums up in tables or multiply bytes as AVX2 does, and makers differ in how many units they
gave to each. So both run for some milliseconds, and the choice is kept beside the compiled kernels.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from math import prod

from ternrun.runtime.cpu.compile import cache_files, isa
from ternrun.runtime.cpu.compile.isa import Isa
from ternrun.runtime.cpu.compile.kernel_cache import CompileProgress, KernelCache, folder_for

SHAPE = 2048, 2048  # 0.9 MB of codes: what is compared is the instructions, not the memory, which is the same for all
TOKENS = 1, 32  # decoding, and prompts
RUNS = 9
ENOUGH = 3e7  # multiply-adds a run
FILE = "choice"


def select_isa(name: str = "", tally: CompileProgress | None = None) -> Isa:
    """As `isa.pick`, but by what was measured, where neither `name` nor the environment forces one.

    Nothing is measured where nothing could be kept. Raises ConfigError, KernelError.
    """
    best, names = isa.select_isa(name), candidates()
    path = folder_for(best) / FILE
    if best.reason == isa.FORCED or len(names) < 2 or not cache_files.is_usable(path.parent):
        return best
    rates = _read(cache_files.read(path), names)
    if not rates:
        if not cache_files.is_writable(path.parent):
            return best
        tally = tally or CompileProgress()
        tally.whole = False
        rates = {candidate: measure(isa.select_isa(candidate), tally) for candidate in names}
        tally.whole = True
        cache_files.try_write(path, json.dumps(rates).encode())
    fastest = max(names, key=lambda candidate: prod(rates[candidate]))
    return replace(isa.select_isa(fastest), reason=_reason(rates, fastest))


def candidates() -> list[str]:
    """Instruction sets that could be fastest: of those without AVX-512, the best alone, which has the others'."""
    vectors = [name for name in isa.available() if name != "portable"]
    return vectors[:2] if vectors[:1] == ["avx512"] else vectors[:1]


def measure(chosen: Isa, tally: CompileProgress | None = None) -> list[float]:
    """Operations a second of one thread, for each of TOKENS, the best of some runs. Raises KernelError."""
    return [_rate(KernelCache(chosen, tally), tokens) for tokens in TOKENS]


def _rate(kernels: KernelCache, tokens: int) -> float:
    from ternrun.runtime.cpu.autotune_probe import AutotuneProbe  # not worth its time where the choice is known

    rows, cols = SHAPE
    trial = AutotuneProbe(kernels, rows, cols, tokens, 1, max(1, round(ENOUGH / (rows * cols * tokens))))
    try:
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            trial.run()
            times.append(time.perf_counter() - start)
    finally:
        trial.close()
    return trial.operations / min(times)


def _read(kept: bytes | None, names: list[str]) -> dict[str, list[float]]:
    """The rates in a file; none where it is not what `pick` wrote for these candidates."""
    try:
        rates = {str(name): [float(rate) for rate in some] for name, some in json.loads(kept or b"{}").items()}
    except (ValueError, TypeError, AttributeError):
        return {}
    return rates if [*rates] == names and all(len(some) == len(TOKENS) for some in rates.values()) else {}


def _reason(rates: dict[str, list[float]], fastest: str) -> str:
    """For people: who was compared, and how they did."""
    told = {name: " and ".join(f"{rate / 1e9:,.0f}" for rate in some) for name, some in rates.items()}
    others = ", ".join(f"{told[name]} with {name}" for name in rates if name != fastest)
    return f"fastest here, {told[fastest]} GOPS for {TOKENS[0]} and {TOKENS[1]} tokens, {others}"
