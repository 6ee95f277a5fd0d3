"""An 8-bit copy of the output matrix that finds the rows which can be among the largest logits.

`kernels/lm_head_screen.py` explains the copy and why the result is exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.compile.isa import Isa
from ternrun.runtime.cpu.linears import Activations
from ternrun.runtime.cpu.memory import address, aligned, round_up
from ternrun.runtime.cpu.program.program import Program, Scratch
from ternrun.runtime.cpu.weights.matrix import OrdinaryMatrix
from ternrun.runtime.cpu.weights.repack import PORTION, Packing

BLOCK = 16  # rows of a vector
MIN_ROWS = 4096  # screening a smaller vocabulary saves nothing


class LMHeadScreen:
    """The copy, its bounds and the working memory for one output matrix; a step has at most `outputs` rows of x."""

    def __init__(self, matrix: OrdinaryMatrix, outputs: int, scratch: Scratch) -> None:
        self._matrix, self._scratch = matrix, scratch
        self.rows, self._blocks = matrix.rows, (matrix.rows + BLOCK - 1) // BLOCK
        rows = BLOCK * self._blocks
        self._codes = aligned(rows * matrix.padded)
        self._steps, self._errors, self._norms = (aligned(4 * rows) for _ in range(3))
        self._stride = round_up(layout.SCREEN_HEADER + 2 * matrix.padded, 64)
        self._prepared = aligned(self._stride * outputs)
        self._block_bounds_ld = round_up(self._blocks, 16)
        self._block_bounds, self._thresholds = aligned(4 * self._block_bounds_ld * outputs), aligned(4 * outputs)
        self._row_ids_ld = round_up(matrix.rows, 16)
        self._row_ids, self._counts = aligned(4 * self._row_ids_ld * outputs), aligned(layout.SCREEN_COUNTS * outputs)
        cells = self._counts[: layout.SCREEN_COUNTS * outputs].view(np.int64).data
        self._best, self._totals = cells[1 :: layout.SCREEN_COUNTS // 8], cells[:: layout.SCREEN_COUNTS // 8]

    @property
    def best(self) -> dict[str, int]:
        """The address of the id (int64) of the first row's largest logit, and the stride in bytes to the next row's."""
        return {"best": address(self._counts) + 8, "best_stride": layout.SCREEN_COUNTS}

    @property
    def read_bytes(self) -> int:
        """Bytes that screening all rows reads, without the few rows that are then computed exactly."""
        return BLOCK * self._blocks * (self._matrix.padded + 12)

    def emit_copy(self, packing: Packing) -> None:
        """Append the calls that fill the copy when the model loads."""
        m = self._matrix
        some = max(1, PORTION // (m.stride * BLOCK)) * BLOCK
        self._taken = aligned(64 * (m.rows // some + 1))
        for row in range(0, m.rows, some):
            rows = min(some, m.rows - row)
            bounds = {name: at + 4 * row for name, at in self._bounds().items()}
            packing.call(
                f"lm_head_copy.{m.tensor.type}", m.data[row * m.stride : (row + rows) * m.stride],
                weights=address(m.data) + row * m.stride, row_bytes=m.stride, rows=rows, n=m.padded,
                codes=address(self._codes) + row * m.padded, taken=address(self._taken) + 64 * (row // some),
                **bounds, **self._scratch.arguments,
            )  # fmt: skip

    def emit(self, program: Program, state: int, x: Activations, logits: Activations) -> None:
        """Append the calls that compute the logits W x which can be among the top_k largest.

        The logits found are stored at the beginning of their row of `logits`; `kept` returns them.
        """
        m, count = self._matrix, state + layout.STATE["outputs"]
        assert logits.ld == self._row_ids_ld
        prepared, scratch = address(self._prepared), self._scratch.arguments
        bounds: dict[str, int] = {
            "block_bounds": address(self._block_bounds),
            "ldb": self._block_bounds_ld,
            "thresholds": address(self._thresholds),
        }
        to: dict[str, int] = {"logits": logits.base, "ldl": logits.ld}
        found: dict[str, int] = {"row_ids": address(self._row_ids), "counts": address(self._counts)}
        rows: dict[str, int] = {"x": x.base, "ldx": x.ld}
        program.call("lm_head_screen.prepare", count=count, n=m.padded, out=prepared, out_stride=self._stride, **rows)
        copy: dict[str, int | float] = {
            "count": count, "prepared": prepared, "prepared_stride": self._stride, "rows": m.rows, "n": m.padded,
            "codes": address(self._codes), "scale": float(m.tensor.scale), **self._bounds(), **to, **bounds,
        }  # fmt: skip
        program.call("lm_head_screen.scan", **copy)
        top_k = state + layout.STATE["top_k"]
        program.call("lm_head_screen.select", count=count, top_k=top_k, blocks=self._blocks, **bounds, **scratch)
        program.call(
            f"lm_head_screen.exact-{m.tensor.type}", weights=address(m.data), row_bytes=m.stride, **copy, **rows,
            **scratch, **found,
        )  # fmt: skip
        program.call("lm_head_screen.gather", count=count, rows=m.rows, **to, **found)

    def kept(self, logits: NDArray[np.float32], outputs: int) -> list[ScreenedLogits]:
        """The logits that the last step found for each output row."""
        return [ScreenedLogits(self, logits, row, self._best[row]) for row in range(outputs)]

    def read(self, logits: NDArray[np.float32], row: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The ids (n,) and logits (n,) that the last step found for a row."""
        some = slice(self._row_ids_ld * row, self._row_ids_ld * row + self._totals[row])
        return self._row_ids.view(np.int32)[some], logits[some]

    def _bounds(self) -> dict[str, int]:
        """Addresses of the copy's step, error norm and weight norm of each row."""
        return {"steps": address(self._steps), "errors": address(self._errors), "norms": address(self._norms)}


class ScreenedLogits:
    """Implements `protocol.SparseLogits`. Callers usually need only `best`, so ids and logits are built on request."""

    __slots__ = ("_logits", "_row", "_screen", "best")

    def __init__(self, screen: LMHeadScreen, logits: NDArray[np.float32], row: int, best: int) -> None:
        self._screen, self._logits, self._row, self.best = screen, logits, row, best

    def read(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Token ids (n,), ascending, and their logits (n,)."""
        return self._screen.read(self._logits, self._row)

    def full_logits(self) -> NDArray[np.float32]:
        """All logits (vocab_size,); -inf for those that were not computed."""
        ids, logits = self.read()
        row = np.full(self._screen.rows, -np.inf, np.float32)
        row[ids] = logits
        return row


def can_screen(isa: Isa, matrix: OrdinaryMatrix, *, biased: bool) -> bool:
    """Whether this CPU has the instruction and the matrix is large enough. A head with a bias is not screened."""
    return isa.has_dot_bytes and matrix.rows >= MIN_ROWS and not biased
