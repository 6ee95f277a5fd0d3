"""A single ternary product for measurements: random packed weights, and inputs that each run prepares again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.cpu.compile.kernel_cache import KernelCache
from ternrun.runtime.cpu.layout import STATE_BYTES
from ternrun.runtime.cpu.linears import Activations, Linears, Norm
from ternrun.runtime.cpu.memory import address, aligned, round_up
from ternrun.runtime.cpu.program.program import Program, Scratch
from ternrun.runtime.cpu.program.thread_pool import KERNELS, ThreadPool
from ternrun.runtime.cpu.weights.matrix import SUPERBLOCK, TernaryMatrix
from ternrun.runtime.cpu.weights.repack import Packing
from ternrun.runtime.encodings import ENCODINGS, nbytes
from ternrun.runtime.weights import Tensor


class AutotuneProbe:
    """Computes y = W x for `tokens` inputs x, `repeats` times a run; W is (rows, cols). Raises KernelError."""

    def __init__(self, kernels: KernelCache, rows: int, cols: int, tokens: int, threads: int, repeats: int) -> None:
        self.operations = 2.0 * rows * cols * tokens * repeats  # multiplications and additions of one run
        layout = kernels.isa.layout
        rng, scratch, packing = np.random.default_rng(0), Scratch(threads, 256 * (cols + SUPERBLOCK[layout])), Packing()
        weights = TernaryMatrix.of(_random_codes(rows, cols, rng), layout, packing, scratch)
        linears = Linears(layout, threads, tokens, scratch, {"w": weights})
        x, out, count = _floats(tokens, cols), _floats(tokens, rows), aligned(STATE_BYTES)
        x.view(np.float32)[:] = rng.standard_normal(x.size // 4)
        count.view(np.int64)[0] = tokens
        source, to = (
            Activations(address(x), round_up(cols, 16), cols),
            Activations(address(out), round_up(rows, 16), rows),
        )
        program = Program()
        for _ in range(repeats):
            linears.emit(program, address(count), source, Norm(0, 1e-5), [(weights, to)])
        kernels.require(packing.kernels | program.kernels | {*KERNELS})
        self.kernel = program.names[-1]
        self._memory = (scratch, weights, linears, x, out, count)  # kept alive: kernels hold only addresses
        self._pool, self._count = ThreadPool(kernels, threads), address(count)
        packing.run(lambda part: self._pool.run(part.assemble(kernels), self._count))
        self._records = program.assemble(kernels)

    def run(self) -> None:
        """Run the products once."""
        self._pool.run(self._records, self._count)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.close()


def _floats(tokens: int, cols: int) -> NDArray[np.uint8]:
    """A buffer for `tokens` rows of `cols` floats, padded to 16."""
    return aligned(4 * tokens * round_up(cols, 16))


def _random_codes(rows: int, cols: int, rng: np.random.Generator) -> Tensor:
    """A tensor (rows, cols) of random ternary weights in I2_S."""
    size = (nbytes("I2_S", (rows, cols)) or 0) - ENCODINGS["I2_S"].tensor_bytes
    digits = rng.integers(0, 3, (4, size), np.uint8)
    codes = digits[0] << 6 | digits[1] << 4 | digits[2] << 2 | digits[3]
    return Tensor("w", "I2_S", (rows, cols), np.concatenate([codes, np.full(8, 0.01, "<f4").view(np.uint8)]))
