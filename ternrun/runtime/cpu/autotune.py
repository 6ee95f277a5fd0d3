"""Choose the fastest instruction set for ternary products by measurement, once on a machine.

A CPU with AVX-512 can look up sums in tables or multiply bytes as AVX2 does, and CPU makers differ in the number of
execution units for each. Both are measured for some milliseconds, and the choice is stored beside the compiled kernels.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from math import prod

from ternrun.runtime.cpu.compile import cache_files, isa
from ternrun.runtime.cpu.compile.isa import Isa
from ternrun.runtime.cpu.compile.kernel_cache import CompileProgress, KernelCache, folder_for

SHAPE = 2048, 2048  # rows and columns: 0.9 MB of codes, which fit in cache, so that instructions are compared
TOKENS = 1, 32  # decoding, and prompts
RUNS = 9
MIN_WORK = 3e7  # multiply-adds a run
FILE = "choice"


def select_isa(name: str = "", tally: CompileProgress | None = None) -> Isa:
    """Like `isa.select_isa`, but the fastest by measurement unless `name` or the environment names one.

    Measures only if there are several candidates and the result can be stored. Raises ConfigError, KernelError.
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
    """The instruction sets that could be fastest: AVX-512, and the best of the others, which includes the rest."""
    vectors = [name for name in isa.available() if name != "portable"]
    return vectors[:2] if vectors[:1] == ["avx512"] else vectors[:1]


def measure(chosen: Isa, tally: CompileProgress | None = None) -> list[float]:
    """Operations a second of one thread for each of TOKENS, the best of RUNS runs. Raises KernelError."""
    return [_rate(KernelCache(chosen, tally), tokens) for tokens in TOKENS]


def _rate(kernels: KernelCache, tokens: int) -> float:
    """Operations a second for products of SHAPE with `tokens` inputs."""
    from ternrun.runtime.cpu.autotune_probe import (
        AutotuneProbe,  # imported here because most processes read a stored choice
    )

    rows, cols = SHAPE
    trial = AutotuneProbe(kernels, rows, cols, tokens, 1, max(1, round(MIN_WORK / (rows * cols * tokens))))
    try:
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            trial.run()
            times.append(time.perf_counter() - start)
    finally:
        trial.close()
    return trial.operations / min(times)


def _read(stored: bytes | None, names: list[str]) -> dict[str, list[float]]:
    """The rates in a stored file; empty if the file is not what `select_isa` writes for these candidates."""
    try:
        rates = {str(name): [float(rate) for rate in some] for name, some in json.loads(stored or b"{}").items()}
    except (ValueError, TypeError, AttributeError):
        return {}
    return rates if [*rates] == names and all(len(some) == len(TOKENS) for some in rates.values()) else {}


def _reason(rates: dict[str, list[float]], fastest: str) -> str:
    """A sentence for users: the rates of the fastest candidate and of the others."""
    shown = {name: " and ".join(f"{rate / 1e9:,.0f}" for rate in some) for name, some in rates.items()}
    others = ", ".join(f"{shown[name]} with {name}" for name in rates if name != fastest)
    return f"fastest here, {shown[fastest]} GOPS for {TOKENS[0]} and {TOKENS[1]} tokens, {others}"
