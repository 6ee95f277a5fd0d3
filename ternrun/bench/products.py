"""One ternary matrix product on its own, its input prepared too, weights in cache as far as they fit: GOPS by shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ternrun.bench.ceilings import Ceilings
from ternrun.bench.timing import Rate, seconds_of
from ternrun.runtime.backend.protocol import ProgressCallback
from ternrun.runtime.cpu.autotune_probe import AutotuneProbe
from ternrun.runtime.cpu.compile.isa import Isa
from ternrun.runtime.cpu.compile.kernel_cache import CompileProgress, KernelCache

SHAPES = ((2048, 2048), (4096, 4096), (4096, 11008), (11008, 4096))
GEMM = 128  # tokens
ENOUGH = 4e8  # multiply-adds a measurement, so that the call from Python does not count


@dataclass(frozen=True, slots=True)
class Product:
    """How fast y = W x ran; `share` is of the instruction ceiling of as many threads."""

    rows: int
    cols: int
    tokens: int
    threads: int
    operations: Rate
    share: float
    kernel: str

    @property
    def json(self) -> dict[str, Any]:
        """As it stands in the JSON object."""
        return {
            "rows": self.rows, "cols": self.cols, "tokens": self.tokens, "threads": self.threads,
            "ops_per_s": self.operations.json, "share_of_compute_ceiling": self.share, "kernel": self.kernel,
        }  # fmt: skip


def measure(
    isa: Isa, threads: int, ceilings: Ceilings, runs: int, progress: ProgressCallback | None = None,
    shapes: tuple[tuple[int, int], ...] = SHAPES,
) -> Iterator[Product]:  # fmt: skip
    """Every shape, for one token and for GEMM of them, on one thread and on all."""
    kernels = KernelCache(isa, CompileProgress(progress))
    ceiling = ceilings.operations[ceilings.ternary]
    for rows, cols in shapes:
        for tokens in (1, GEMM):
            for count in sorted({1, threads}):
                rate, kernel = _product(kernels, rows, cols, tokens, count, runs)
                yield Product(rows, cols, tokens, count, rate, rate.median / ceiling[count], kernel)


def _product(kernels: KernelCache, rows: int, cols: int, tokens: int, threads: int, runs: int) -> tuple[Rate, str]:
    """Operations a second, and the kernel that did them."""
    trial = AutotuneProbe(kernels, rows, cols, tokens, threads, max(1, round(ENOUGH / (rows * cols * tokens))))
    try:
        return Rate.of(trial.operations, seconds_of(trial.run, runs)), trial.kernel
    finally:
        trial.close()
