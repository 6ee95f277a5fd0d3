"""One ternary matrix product on its own, its input prepared too, weights in cache as far as they fit: GOPS by shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ternrun.bench.ceilings import Ceilings, count_cell
from ternrun.bench.timing import Rate, seconds_of
from ternrun.runtime.cpu.isa import Isa
from ternrun.runtime.cpu.linears import Linears, Norm, Rows
from ternrun.runtime.cpu.matrix import SUPERBLOCK, Ternary
from ternrun.runtime.cpu.memory import address, aligned, round_up
from ternrun.runtime.cpu.objects import Kernels, Progress
from ternrun.runtime.cpu.packing import Packing
from ternrun.runtime.cpu.program import Program, Scratch
from ternrun.runtime.cpu.team import Team
from ternrun.runtime.encodings import ENCODINGS, nbytes
from ternrun.runtime.weights import Tensor

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
    isa: Isa, threads: int, ceilings: Ceilings, runs: int, progress: Progress | None = None,
    shapes: tuple[tuple[int, int], ...] = SHAPES,
) -> Iterator[Product]:  # fmt: skip
    """Every shape, for one token and for GEMM of them, on one thread and on all."""
    kernels = Kernels(isa, progress)
    ceiling = ceilings.operations[ceilings.ternary]
    for rows, cols in shapes:
        for tokens in (1, GEMM):
            for count in sorted({1, threads}):
                rate, kernel = _product(kernels, rows, cols, tokens, count, runs)
                yield Product(rows, cols, tokens, count, rate, rate.median / ceiling[count], kernel)


def _product(kernels: Kernels, rows: int, cols: int, tokens: int, threads: int, runs: int) -> tuple[Rate, str]:
    """Operations a second, and the kernel that did them."""
    layout = "words" if kernels.isa.name == "avx512" else "bytes"
    rng, scratch = np.random.default_rng(0), Scratch(threads, 256 * (cols + SUPERBLOCK[layout]))
    packing = Packing()
    weights = Ternary.of(_tensor(rows, cols, rng), layout, packing, scratch)
    linears = Linears(kernels.isa.name, threads, tokens, scratch, {"w": weights})
    x = _floats(tokens, cols)
    x.view(np.float32)[:] = rng.standard_normal(x.size // 4)
    out, count = _floats(tokens, rows), count_cell(tokens)
    source, to = Rows(address(x), round_up(cols, 16), cols), Rows(address(out), round_up(rows, 16), rows)
    program = Program()
    repeats = max(1, round(ENOUGH / (rows * cols * tokens)))
    for _ in range(repeats):
        linears.emit(program, address(count), source, Norm(0, 1e-5), [(weights, to)])
    kernels.require(packing.kernels | program.kernels | {"team.lead", "team.post", "team.work"})
    team = Team(kernels, threads)
    try:
        packing.run(lambda part: team.run(part.assemble(kernels), address(count)))
        records = program.assemble(kernels)
        times = seconds_of(lambda: team.run(records, address(count)), runs)
    finally:
        team.close()
    return Rate.of(2.0 * rows * cols * tokens * repeats, times), program.names[-1]


def _floats(tokens: int, cols: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return aligned(4 * tokens * round_up(cols, 16))


def _tensor(rows: int, cols: int, rng: np.random.Generator) -> Tensor:
    """Random codes of 0, 1 and 2 in I2_S."""
    size = (nbytes("I2_S", (rows, cols)) or 0) - ENCODINGS["I2_S"].tensor_bytes
    digits = rng.integers(0, 3, (4, size), np.uint8)
    codes = digits[0] << 6 | digits[1] << 4 | digits[2] << 2 | digits[3]
    return Tensor("w", "I2_S", (rows, cols), np.concatenate([codes, np.full(8, 0.01, "<f4").view(np.uint8)]))
