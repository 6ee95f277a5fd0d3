"""Products with a constant matrix of few bits on the engine's kernels and threads: it stays packed."""

from __future__ import annotations

import threading
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ternrun.loader.onnx.limits import room, work
from ternrun.loader.onnx.operators.table import Array
from ternrun.runtime.cpu import isa, layout
from ternrun.runtime.cpu.linears import NO_NORM, Linears, Rows, plain_scratch
from ternrun.runtime.cpu.matrix import Plain
from ternrun.runtime.cpu.memory import address, aligned
from ternrun.runtime.cpu.model import default_threads
from ternrun.runtime.cpu.objects import Kernels
from ternrun.runtime.cpu.program import Program, Scratch
from ternrun.runtime.cpu.team import Team
from ternrun.runtime.weights import Tensor


class Native:
    """y = x W^T in float32. Any number of threads may call it at once: they take turns."""

    def __init__(self, tensor: Tensor) -> None:
        """`tensor`: (rows, cols) in an ordinary encoding in blocks that divide the columns."""
        self._matrix = Plain.of(tensor)
        self._workers = workers()
        self._workers.kernels.require([f"linear.{tensor.type}"])

    def __call__(self, x: Array) -> Array:
        """(..., cols) -> (..., rows). Raises LoadError for more than a tensor may be."""
        m = self._matrix
        rows = np.ascontiguousarray(x, np.float32).reshape(-1, m.cols)
        room((len(rows), m.rows))
        work(len(rows) * m.rows * m.cols)
        out = np.empty((len(rows), m.rows), np.float32)
        if len(rows):
            self._workers.multiply(m, rows, out)
        return out.reshape(*x.shape[:-1], m.rows)


class Workers:
    """A team of threads over kernels for products, shared by all graphs of this process."""

    def __init__(self) -> None:
        chosen, threads = isa.pick(), default_threads()
        self.kernels = Kernels(chosen)
        self._isa, self._threads = chosen.name, threads
        self._team, self._turn = Team(self.kernels, threads), threading.Lock()
        self._state = aligned(layout.STATE_BYTES)[: layout.STATE_BYTES].view(np.int64)
        self._linears: dict[int, Linears] = {}  # by the columns that their scratch has room for

    def multiply(self, matrix: Plain, x: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """out (n, rows) = x (n, cols) W^T; both contiguous."""
        with self._turn:
            if matrix.padded not in self._linears:
                scratch = Scratch(self._threads, plain_scratch(matrix.padded))
                self._linears[matrix.padded] = Linears(self._isa, self._threads, 1, scratch, {})
            program, places = Program(), [(matrix, Rows(address(out), matrix.rows, matrix.rows))]
            source = Rows(address(x), matrix.cols, matrix.cols)
            count = address(self._state) + layout.STATE["tokens"]
            self._linears[matrix.padded].emit(program, count, source, NO_NORM, places)
            self._state[layout.STATE["tokens"] // 8] = len(x)
            self._team.run(program.assemble(self.kernels), address(self._state))


@cache
def workers() -> Workers:
    """The team, started when the first graph wants it."""
    return Workers()
