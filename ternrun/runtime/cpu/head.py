"""The 8-bit copy of the output matrix that finds the rows which can still be among the largest logits.

What is kept and why it is exact: `kernels/screen.py`.
"""

from __future__ import annotations

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.isa import Isa
from ternrun.runtime.cpu.linears import Rows
from ternrun.runtime.cpu.matrix import Plain
from ternrun.runtime.cpu.memory import address, aligned, round_up
from ternrun.runtime.cpu.packing import PORTION, Packing
from ternrun.runtime.cpu.program import Program, Scratch

BLOCK = 16  # rows that share a vector
SMALLEST = 4096  # rows; screening a smaller vocabulary saves nothing


class Screen:
    """Copy, bounds and working memory for one output matrix; `outputs` is the most rows of x a step may have."""

    def __init__(self, matrix: Plain, outputs: int, scratch: Scratch) -> None:
        self._matrix, self._scratch = matrix, scratch
        self._blocks = (matrix.rows + BLOCK - 1) // BLOCK
        rows = BLOCK * self._blocks
        self._codes = aligned(rows * matrix.padded)
        self._steps, self._errors, self._norms = (aligned(4 * rows) for _ in range(3))
        self._stride = round_up(layout.SCREEN_HEADER + 2 * matrix.padded, 64)
        self._prepared = aligned(self._stride * outputs)
        self._peaks_ld = round_up(self._blocks, 16)
        self._peaks, self._bars = aligned(4 * self._peaks_ld * outputs), aligned(4 * outputs)

    @property
    def read_bytes(self) -> int:
        """Bytes that screening all rows reads; the few that are then computed exactly are not among them."""
        return BLOCK * self._blocks * (self._matrix.padded + 12)

    def emit_copy(self, packing: Packing) -> None:
        """Append the calls that fill the copy, at load."""
        m = self._matrix
        some = max(1, PORTION // (m.stride * BLOCK)) * BLOCK
        self._taken = aligned(64 * (m.rows // some + 1))
        for row in range(0, m.rows, some):
            rows = min(some, m.rows - row)
            at = (address(self._codes) + row * m.padded, *(bound + 4 * row for bound in self._bounds()))
            packing.call(
                f"screen_copy.{m.tensor.type}", address(m.data) + row * m.stride, m.stride, rows, m.padded, *at,
                self._scratch.base, self._scratch.stride, address(self._taken) + 64 * (row // some),
                source=m.data[row * m.stride : (row + rows) * m.stride],
            )  # fmt: skip

    def emit(self, program: Program, state: int, x: Rows, logits: Rows) -> None:
        """logits = W x where a row can be among the `keep` largest, else -inf."""
        m, count = self._matrix, state + layout.STATE["outputs"]
        prepared, peaks, bars = address(self._prepared), address(self._peaks), address(self._bars)
        private = (self._scratch.base, self._scratch.stride)
        program.call("screen.prepare", count, x.base, x.ld, m.padded, prepared, self._stride)
        common = (
            count, prepared, self._stride, m.rows, m.padded, address(self._codes), *self._bounds(), logits.base,
            logits.ld,            peaks, self._peaks_ld, bars, float(m.tensor.scale),
        )  # fmt: skip
        program.call("screen.scan", *common)
        keep = state + layout.STATE["keep"]
        program.call("screen.select", count, keep, peaks, self._peaks_ld, self._blocks, bars, *private)
        program.call(f"screen.exact-{m.tensor.type}", *common, address(m.data), m.stride, x.base, x.ld, *private)

    def _bounds(self) -> tuple[int, int, int]:
        return address(self._steps), address(self._errors), address(self._norms)


def can_screen(isa: Isa, matrix: Plain, *, biased: bool) -> bool:
    """Whether this CPU has the instruction for it and the matrix is large enough to pay; a bias is not bounded."""
    return "+avx512vnni" in isa.features and matrix.rows >= SMALLEST and not biased
