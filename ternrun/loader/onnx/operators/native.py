"""Products with a constant matrix on the engine's kernels and threads: weights of few bits stay packed, and floats meet
faster than in numpy's BLAS."""

from __future__ import annotations

import threading
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ternrun.loader.onnx.limits import room, work
from ternrun.loader.onnx.operators.table import Array
from ternrun.runtime.cpu import isa, layout
from ternrun.runtime.cpu.linears import Rows, plain_product, plain_scratch
from ternrun.runtime.cpu.matrix import Plain
from ternrun.runtime.cpu.memory import address, aligned
from ternrun.runtime.cpu.model import default_threads
from ternrun.runtime.cpu.objects import Kernels
from ternrun.runtime.cpu.program import Program, Records, Scratch
from ternrun.runtime.cpu.signatures import SIGNATURES, Argument
from ternrun.runtime.cpu.team import Team
from ternrun.runtime.weights import Tensor

TOKENS = layout.STATE["tokens"] // 8
MULTIPLY, ADD = SIGNATURES["linear"], SIGNATURES["elements.bias"]
LEAST = 1 << 16  # weights from which on a matrix is worth the engine's threads


class Native:
    """y = x W^T in float32. Any number of threads may call it at once: they take turns."""

    def __init__(self, tensor: Tensor) -> None:
        """`tensor`: (rows, cols) in an ordinary encoding in blocks that divide the columns, as 16 does."""
        self._matrix, self._workers = Plain.of(tensor), workers()
        self._product = self._workers.prepare(self._matrix)

    def __call__(self, x: Array, bias: Array | None = None) -> Array:
        """(..., cols) -> (..., rows), plus `bias` (rows,). Raises LoadError for more than a tensor may be."""
        m = self._matrix
        rows = np.ascontiguousarray(x, np.float32).reshape(-1, m.cols)
        room((len(rows), m.rows))
        work(len(rows) * m.rows * m.cols)
        out = np.empty((*x.shape[:-1], m.rows), np.float32)  # its own memory: the plan may write over it
        if len(rows):
            self._workers.multiply(self._product, rows, out, bias)
        return out


def of_floats(weights: Array | None) -> Native | None:
    """The product with a constant matrix (cols, rows) that is given in float32; None where it is better left to numpy.

    What an exporter has turned round is turned back without a copy.
    """
    if weights is None or weights.dtype != np.float32 or weights.ndim != 2 or weights.size < LEAST:
        return None
    if weights.shape[0] % 16:
        return None
    turned = np.ascontiguousarray(weights.T)
    return Native(Tensor("weights", "F32", turned.shape, turned.reshape(-1).view(np.uint8)))


class Product(NamedTuple):
    """A product's program, without a bias and with one, and the arguments that say where its operands lie."""

    alone: Records
    biased: Records
    multiply: NDArray[np.int64]
    add: NDArray[np.int64]


class Workers:
    """A team of threads over kernels, shared by all graphs of this process."""

    def __init__(self) -> None:
        self.kernels, self._threads = Kernels(isa.pick()), default_threads()
        self._team, self._turn = Team(self.kernels, self._threads), threading.Lock()
        self._state = aligned(layout.STATE_BYTES)[: layout.STATE_BYTES].view(np.int64)
        self._base = address(self._state)
        self._scratch: dict[int, Scratch] = {}  # by the columns that there is room for
        self._calls: dict[str, Records] = {}

    def prepare(self, matrix: Plain) -> Product:
        """The program of a product; where its operands lie is filled in when it runs."""
        with self._turn:
            if matrix.padded not in self._scratch:
                self._scratch[matrix.padded] = Scratch(self._threads, plain_scratch(matrix.padded))
            program, count = Program(), self._base + layout.STATE["tokens"]
            x, out = Rows(0, matrix.cols, matrix.cols), Rows(0, matrix.rows, matrix.rows)
            plain_product(program, count, x, matrix, out, self._scratch[matrix.padded])
            program.call("elements.bias", count=count, n=matrix.rows, x=0, bias=0)
            both = self._assembled(program)
            return Product(both._replace(calls=1), both, _arguments(both, 0), _arguments(both, 1))

    def multiply(
        self, product: Product, x: NDArray[np.float32], out: NDArray[np.float32], bias: NDArray[np.float32] | None
    ) -> None:
        """Run such a program: out (n, rows) = x (n, cols) W^T + bias; all contiguous."""
        to = address(out)
        with self._turn:
            product.multiply[MULTIPLY.index("x")], product.multiply[MULTIPLY.index("out")] = address(x), to
            if bias is not None:
                product.add[ADD.index("x")], product.add[ADD.index("bias")] = to, address(bias)
            self._state[TOKENS] = len(x)
            self._team.run(product.alone if bias is None else product.biased, self._base)

    def call(self, kernel: str, /, **args: Argument) -> None:
        """Run one kernel with the arguments that its signature names."""
        with self._turn:
            if kernel not in self._calls:
                program = Program()
                program.call(kernel, **args)
                self._calls[kernel] = self._assembled(program)
            records = self._calls[kernel]
            _arguments(records, 0)[: len(args)] = SIGNATURES[kernel].pack(kernel, args)
            self._team.run(records, self._base)

    def _assembled(self, program: Program) -> Records:
        self.kernels.require(program.kernels)
        return program.assemble(self.kernels)


def _arguments(records: Records, call: int) -> NDArray[np.int64]:
    """Those of one call of a program, to be changed."""
    at = layout.RECORD * call
    return records.memory[at : at + layout.RECORD].view(np.int64)[layout.RECORD_HEAD :]


@cache
def workers() -> Workers:
    """The team, started when the first graph wants it."""
    return Workers()


def working() -> bool:
    """Whether any graph has wanted it."""
    return bool(workers.cache_info().currsize)
