"""Kernels on their own: compiled for every instruction set this machine has, called from plain Python.

A call with several threads runs them one after another, which shows whether each does its share and no more.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.compile import isa
from ternrun.runtime.cpu.compile.kernel_cache import KernelCache
from ternrun.runtime.cpu.layout import KV_SIZE
from ternrun.runtime.cpu.memory import address, aligned
from ternrun.runtime.cpu.program.program import Program
from ternrun.runtime.encodings import ENCODINGS
from tests.runtime.cpu import vector_signature

ISAS = isa.available()
ORDINARY = [name for name, e in ENCODINGS.items() if e.kind != "ternary"]
TERNARY = [name for name, e in ENCODINGS.items() if e.kind == "ternary"]
PRODUCTS = {
    "lut16": ["ternary_lut16.rows", "ternary_lut16.blocks", "check.lut16"],
    "byte_dot": ["ternary_byte_dot.any"],
}
LINEARS = ("F32", "F16", "BF16", "Q8_0", "Q4_K", "Q6_K", "Q2_0")
_PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 3)


@dataclass(frozen=True)
class Machine:
    """The kernels of one instruction set."""

    isa: str
    kernels: KernelCache

    @property
    def layout(self) -> str:
        """How ternary codes are laid out for it."""
        return self.kernels.isa.layout

    def call(self, name: str, *, threads: int = 1, **args: Any) -> None:
        """Run one kernel."""
        program = Program()
        program.call(name, **args)
        self.run(program, threads)

    def run(self, program: Program, threads: int = 1) -> None:
        """Run all calls of a program, each by all threads in turn, the last thread first."""
        self.kernels.require(program.kernels)
        records = program.assemble(self.kernels).memory
        for at in range(0, layout.RECORD * len(program), layout.RECORD):
            kernel = _PROTOTYPE(int(records[at : at + 8].view(np.int64)[0]))
            for tid in reversed(range(threads)):
                assert kernel(address(records) + at + 16, tid, threads) == 0


@cache
def machine(name: str) -> Machine:
    """That instruction set, with the kernels most tests need compiled in one go."""
    kernels = KernelCache(isa.select_isa(name))
    found = Machine(name, kernels)
    kernels.require(
        [f"pack.{t}-{found.layout}" for t in TERNARY if not (found.layout == "lut16" and ENCODINGS[t].chunk)]
        + [f"embed.{t}-trits" for t in TERNARY]
        + [f"embed.{t}" for t in (*ORDINARY, "Q2_0", "PQ2_0")]
        + [f"linear.{t}" for t in LINEARS]
        + [f"{what}.{kv}" for what in ("cache", "attention") for kv in KV_SIZE]
        + [vector_kernel(entry) for entry in VECTOR_ENTRIES]
        + [f"rows.{n}" for n in ("norm", "norm_add", "norm_outputs", "bias", "softcap", "silu", "gelu", "relu2")]
        + ["greedy.best", "greedy.feed"]
        + [f"elements.{n}" for n in ("erf", "gelu", "silu", "softmax", "layer_norm", "bias")]
        + [f"mhc.{n}" for n in ("spread", "read", "write", "mean")]
        + [f"prepare.{found.layout}", "step.run", "step.launch", "step.work"]
        + (
            ["ternary_lut16.rows", "ternary_lut16.blocks", "check.lut16"]
            if found.layout == "lut16"
            else ["ternary_byte_dot.any"]
        )
    )
    return found


vector_signature.register()
VECTOR_ENTRIES = (
    "i8x32", "i8x64", "i16x16", "i16x32", "i32x8", "i32x16", "f32x16", "casts", "halves", "floats_to_half", "functions",
    "byte_products",
)  # fmt: skip


def vector_kernel(entry: str) -> str:
    """Name of a kernel of `vectors.py`, which changes with its source: the cache's key does not cover the tests."""
    source = Path(__file__).with_name("vectors.py").read_bytes()
    return f"tests.runtime.cpu.vectors.{entry}-{hashlib.sha256(source).hexdigest()[:8]}"


def apply(on: Machine, entry: str, data: NDArray[Any], out_bytes: int) -> NDArray[np.uint8]:
    """Run a kernel of `vectors.py` over each row of `data` (n, ...); gives (n, out_bytes) uint8."""
    source = np.ascontiguousarray(data)
    out = aligned(out_bytes * len(source))
    on.call(
        vector_kernel(entry), source=address(source), source_bytes=source.nbytes // len(source), out=address(out),
        out_bytes=out_bytes, items=len(source),
    )  # fmt: skip
    return out[: out_bytes * len(source)].reshape(len(source), out_bytes)


def copy_of(values: NDArray[Any], dtype: Any = np.float32) -> NDArray[Any]:
    """The values on a cache line, with room behind for a whole vector."""
    values = np.ascontiguousarray(values, dtype)
    out = aligned(values.nbytes)
    out[: values.nbytes] = values.reshape(-1).view(np.uint8)
    return out[: values.nbytes].view(dtype).reshape(values.shape)


def guarded(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy that ends where readable memory ends, as the last tensor of a mapped file may: reading on is a fault."""
    pages = -(-data.size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = np.frombuffer(mmap.mmap(-1, pages + mmap.PAGESIZE), np.uint8)
    if hasattr(mmap, "PROT_READ"):  # not on Windows
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mprotect(ctypes.c_void_p(address(memory) + pages), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    memory[pages - data.size : pages] = data
    return memory[pages - data.size : pages]
