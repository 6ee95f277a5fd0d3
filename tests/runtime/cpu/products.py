"""Matrix products as a model makes them: weights packed, inputs prepared, outputs where the caller wants them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ternrun.loader.quants.table import encode_trits
from ternrun.runtime.cpu.linears import NO_NORM, Activations, Linears, Norm, is_ternary, ordinary_scratch
from ternrun.runtime.cpu.memory import address, padded_vector, round_up
from ternrun.runtime.cpu.program.program import Program, Scratch
from ternrun.runtime.cpu.weights.matrix import OrdinaryMatrix, TernaryMatrix
from ternrun.runtime.cpu.weights.repack import Packing
from ternrun.runtime.encodings import ENCODINGS
from ternrun.runtime.weights import Tensor
from tests.reference import quantize, ternary_linear
from tests.runtime.cpu.harness import Machine, copy_of, guarded

F32 = NDArray[np.float32]
SENTINEL = np.float32(-12345.0)
CANARY = 0xA5


@dataclass(frozen=True)
class Setting:
    """How a product is run: threads, tokens a step may have, an RMSNorm before, adding to what is there."""

    threads: int = 1
    room: int = 0  # 0: as many tokens as there are
    norm: F32 | None = None
    eps: float = 1e-5
    add: bool = False


def watched_scratch(threads: int, widest: int) -> tuple[Scratch, NDArray[np.uint8]]:
    """Scratch twice as large as `CpuModel` makes it, and the halves (threads, bytes) that it would not have."""
    size = max(32 * (widest + 1024) + 8192, ordinary_scratch(widest))
    scratch = Scratch(threads, 2 * size)
    areas = scratch._memory[: threads * scratch.stride].reshape(threads, scratch.stride)
    watch = areas[:, round_up(size, 4096) + 64 :]
    watch[:] = CANARY
    return scratch, watch


def product(on: Machine, tensors: list[Tensor], x: F32, setting: Setting = Setting()) -> list[F32]:
    """W x (T, rows) for each of some matrices that read the same x (T, cols)."""
    tokens, cols = x.shape
    room = setting.room or tokens
    scratch, watch = watched_scratch(setting.threads, cols)
    packing, step = Packing(), Program()
    matrices = {
        t.name: TernaryMatrix.of(t, on.layout, packing, scratch) if is_ternary(t) else OrdinaryMatrix.of(t)
        for t in tensors
    }
    linears = Linears(on.layout, setting.threads, room, scratch, matrices)
    ld = round_up(cols, 16)
    source = copy_of(np.pad(x, ((0, 0), (0, ld - cols))))
    # outputs side by side, with a gap between them that nobody may write to
    columns = np.cumsum([0] + [round_up(t.shape[0], 16) + 16 for t in tensors])
    out = copy_of(np.full((tokens, int(columns[-1])), SENTINEL))
    count = copy_of(np.array([tokens]), np.int64)
    held = None if setting.norm is None else padded_vector(setting.norm)
    norm = NO_NORM if held is None else Norm(address(held), setting.eps)
    to = Activations(address(out), out.shape[1], out.shape[1])
    parts = [(matrices[t.name], to.at(int(at), t.shape[0])) for t, at in zip(tensors, columns, strict=False)]
    linears.emit(step, address(count), Activations(address(source), ld, cols), norm, parts, add=setting.add)
    packing.run(lambda program: on.run(program, setting.threads))
    for matrix in matrices.values():
        if isinstance(matrix, TernaryMatrix):
            matrix.check()
    on.run(step, setting.threads)
    assert (watch == CANARY).all(), "a kernel wrote behind its scratch"
    results = []
    for tensor, at in zip(tensors, columns, strict=False):
        results.append(out[:, at : at + tensor.shape[0]].copy())
        out[:, at : at + tensor.shape[0]] = SENTINEL
    assert (out == SENTINEL).all(), "a product wrote beside its output"
    return results


def ternary_tensor(
    encoding: str, shape: tuple[int, int], rng: np.random.Generator, *, scales: str = "tensor", w: object = None
) -> Tensor:
    """Seeded trits in an encoding, in memory that ends with them. `scales`: one a tensor, a row or a block."""
    rows, cols = shape
    values = rng.integers(-1, 2, shape).astype(np.int8) if w is None else np.broadcast_to(np.int8(w), shape)  # type: ignore[call-overload]
    if encoding == "Q1_0":
        values = np.where(values == 0, 1, values).astype(np.int8)
    wanted = {"tensor": (1, 1), "row": (rows, 1), "block": (rows, cols // ENCODINGS[encoding].block)}[scales]
    factors = rng.integers(1, 2000, wanted).astype(np.float32) / 1024  # fp16 holds them
    if scales == "block":
        factors[rng.random(wanted) < 0.1] = 0
    data = encode_trits(encoding, values, factors)
    return Tensor("w", encoding, shape, guarded(data), 0.75 if scales == "row" else 1.0)


def expected(tensor: Tensor, x: F32) -> F32:
    """The plain-numpy reference: exact integer sums, one float32 operation after another."""
    return ternary_linear(tensor, x)


def activations(shape: tuple[int, int], rng: np.random.Generator) -> F32:
    """Rows of very different sizes, one of them zero."""
    x = rng.standard_normal(shape).astype(np.float32) * np.float32(10.0) ** rng.integers(-3, 4, (shape[0], 1))
    x[1:2] = 0
    return x.astype(np.float32)


def codes_of(x: F32) -> NDArray[np.int8]:
    """The int8 codes of those activations."""
    return quantize(x)[0]
