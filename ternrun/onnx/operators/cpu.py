"""The interface to the CPU runtime: the only module of ternrun.onnx that imports ternrun.runtime.cpu.

Operators use three methods of `workers()`: `prepare(tensor)` compiles the product with a constant matrix, `multiply`
runs it, and `call(name, ...)` runs one of the row kernels `elements.{erf,gelu,silu,softmax,layer_norm}`. A second
backend provides a class with these three methods, which take and return numpy arrays in host memory. The rest of this
package is numpy.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.compile import isa
from ternrun.runtime.cpu.compile.kernel_cache import KernelCache
from ternrun.runtime.cpu.linears import Activations, ordinary_product, ordinary_scratch
from ternrun.runtime.cpu.memory import address, aligned
from ternrun.runtime.cpu.model import default_threads
from ternrun.runtime.cpu.program.program import Program, Records, Scratch
from ternrun.runtime.cpu.program.thread_pool import ThreadPool
from ternrun.runtime.cpu.signatures import SIGNATURES, Argument
from ternrun.runtime.cpu.weights.matrix import OrdinaryMatrix
from ternrun.runtime.weights import Tensor

TOKENS = layout.STATE["tokens"] // 8
MULTIPLY, ADD = SIGNATURES["linear"], SIGNATURES["elements.bias"]


class Product(NamedTuple):
    """The program of a product, without and with a bias, and views of the arguments that hold its operands'
    addresses.
    """

    alone: Records
    biased: Records
    multiply: NDArray[np.int64]
    add: NDArray[np.int64]
    matrix: OrdinaryMatrix  # kept alive, because the program reads its memory


class Workers:
    """A thread pool and its kernels, shared by all graphs of this process."""

    def __init__(self) -> None:
        self.kernels, self._threads = KernelCache(isa.select_isa()), default_threads()
        self._pool, self._turn = ThreadPool(self.kernels, self._threads), threading.Lock()
        self._state = aligned(layout.STATE_BYTES)[: layout.STATE_BYTES].view(np.int64)
        self._base = address(self._state)
        self._scratch: dict[int, Scratch] = {}  # by number of columns
        self._calls: dict[str, Records] = {}

    def prepare(self, tensor: Tensor) -> Product:
        """Compile the program of a product with `tensor` (rows, cols). Operand addresses are set when it runs."""
        matrix = OrdinaryMatrix.of(tensor)
        with self._turn:
            if matrix.padded not in self._scratch:
                self._scratch[matrix.padded] = Scratch(self._threads, ordinary_scratch(matrix.padded))
            program, count = Program(), self._base + layout.STATE["tokens"]
            x, out = Activations(0, matrix.cols, matrix.cols), Activations(0, matrix.rows, matrix.rows)
            ordinary_product(program, count, x, matrix, out, self._scratch[matrix.padded])
            program.call("elements.bias", count=count, n=matrix.rows, x=0, bias=0)
            both = self._assembled(program)
            return Product(both._replace(calls=1), both, _arguments(both, 0), _arguments(both, 1), matrix)

    def multiply(
        self, product: Product, x: NDArray[np.float32], out: NDArray[np.float32], bias: NDArray[np.float32] | None
    ) -> None:
        """Run a product: out (n, rows) = x (n, cols) W^T + bias; all arrays are contiguous."""
        to = address(out)
        with self._turn:
            product.multiply[MULTIPLY.index("x")], product.multiply[MULTIPLY.index("out")] = address(x), to
            if bias is not None:
                product.add[ADD.index("x")], product.add[ADD.index("bias")] = to, address(bias)
            self._state[TOKENS] = len(x)
            self._pool.run(product.alone if bias is None else product.biased, self._base)

    def call(self, kernel: str, /, **values: Argument | NDArray[np.float32]) -> None:
        """Run one kernel with the arguments that its signature names. Contiguous arrays are passed as addresses."""
        args = {name: address(v) if isinstance(v, np.ndarray) else v for name, v in values.items()}
        with self._turn:
            if kernel not in self._calls:
                program = Program()
                program.call(kernel, **args)
                self._calls[kernel] = self._assembled(program)
            records = self._calls[kernel]
            _arguments(records, 0)[: len(args)] = SIGNATURES[kernel].pack(kernel, args)
            self._pool.run(records, self._base)

    def _assembled(self, program: Program) -> Records:
        """Load a program's kernels and assemble it."""
        self.kernels.require(program.kernels)
        return program.assemble(self.kernels)


def _arguments(records: Records, call: int) -> NDArray[np.int64]:
    """A writable view of the arguments of one call of a program."""
    at = layout.RECORD * call
    return records.memory[at : at + layout.RECORD].view(np.int64)[layout.RECORD_HEAD :]


@cache
def workers() -> Workers:
    """The thread pool, started at the first call."""
    return Workers()


def in_use() -> bool:
    """Whether the thread pool has been started."""
    return bool(workers.cache_info().currsize)
