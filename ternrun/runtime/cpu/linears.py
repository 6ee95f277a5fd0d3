"""Matrix products of a step: which kernels multiply which weights, and what they need prepared.

Ternary matrices that read the same input share one prepared copy of it and one kernel call; ordinary ones read the
(normed) float32 rows themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.memory import address, aligned, round_up
from ternrun.runtime.cpu.program.program import ALWAYS, NEVER, Program, Scratch
from ternrun.runtime.cpu.weights.matrix import OrdinaryMatrix, TernaryMatrix
from ternrun.runtime.encodings import ENCODINGS
from ternrun.runtime.weights import Tensor

Matrix = OrdinaryMatrix | TernaryMatrix
MAX_GROUP = 3  # matrices of one call of `ternary.*`


@dataclass(frozen=True, slots=True)
class Activations:
    """A float32 buffer of activations: its address, floats from row to row, and used columns."""

    base: int
    ld: int
    cols: int

    def at(self, column: int, cols: int) -> Activations:
        """A part of the columns."""
        return Activations(self.base + 4 * column, self.ld, cols)


@dataclass(frozen=True, slots=True)
class Norm:
    """RMSNorm with a padded weight vector (address 0: none); eps below 0: no norm at all."""

    weight: int = 0
    eps: float = -1.0


NO_NORM = Norm()


def is_ternary(tensor: Tensor) -> bool:
    """Whether the ternary kernels can hold it; Q2_0's fourth code, 2d, makes a tensor an ordinary one."""
    if ENCODINGS[tensor.type].kind != "ternary":
        return False
    if tensor.type not in ("Q2_0", "PQ2_0"):
        return True
    codes = tensor.data.reshape(-1, ENCODINGS[tensor.type].block_bytes)[:, 2:]
    return not (codes & (codes >> 1) & 0x55).any()


def norm_rows(program: Program, count: int, x: Activations, norm: Norm, out: Activations) -> None:
    """out = norm(x)."""
    program.call(
        "rows.norm", count=count, x=x.base, ldx=x.ld, n=x.cols, weight=norm.weight, eps=norm.eps, out=out.base,
        ldo=out.ld,
    )  # fmt: skip


def ordinary_scratch(cols: int) -> int:
    """Bytes a thread that `linear.*` needs for rows of at most so many columns."""
    return layout.ORDINARY_PARTIAL + 4 * max(layout.ORDINARY_FLOATS, 4 * round_up(cols, 256))


def ordinary_product(
    program: Program, count: int, x: Activations, m: OrdinaryMatrix, out: Activations, scratch: Scratch, *,
    add: bool = False, barrier: int = ALWAYS,
) -> None:  # fmt: skip
    """out (+)= W x for an ordinary matrix; `scratch` has the room that `plain_scratch` says."""
    program.call(
        f"linear.{m.tensor.type}", barrier, count=count, x=x.base, ldx=x.ld, weights=address(m.data),
        row_bytes=m.stride, rows=m.rows, n=m.padded, add=int(add), out=out.base, ldo=out.ld,
        scale=float(m.tensor.scale), **scratch.arguments,
    )  # fmt: skip


class Linears:
    """Emits products into a program. `layout_name` is that of ternary codes; `tokens` is the most a step may have."""

    def __init__(
        self, layout_name: str, threads: int, tokens: int, scratch: Scratch, matrices: Mapping[str, Matrix]
    ) -> None:
        self.layout = layout_name
        self._tokens = tokens
        self._threads, self._scratch = threads, scratch
        self._header = round_up(4 * tokens, 64)
        widest = max((self._stride(m) for m in matrices.values() if isinstance(m, TernaryMatrix)), default=0)
        self._private = round_up(self._header + widest, 4096) + 64
        self._prepared = aligned(max(self._header + widest * tokens, self._private * threads))
        self._sums_stride = layout.TERNARY_SUMS + 64 if self.layout == "lut16" else 0
        self._sums: NDArray[np.uint8] = aligned(self._sums_stride * threads)
        widest = max((m.cols for m in matrices.values()), default=0)
        self._normed_ld = round_up(widest, 16)
        self._normed = aligned(4 * self._normed_ld * self._tokens)

    def _stride(self, m: TernaryMatrix) -> int:
        """Bytes of one token's prepared codes, with room for a table's width behind them."""
        if self.layout == "lut16":
            return round_up(12 * m.words * -(-m.cols // m.chunk) + 64, 64)
        return round_up(round_up(m.cols, 16) + 4 * -(-m.cols // m.chunk), 64)

    def emit(
        self,
        program: Program,
        count: int,
        x: Activations,
        norm: Norm,
        parts: Sequence[tuple[Matrix, Activations]],
        *,
        add: bool = False,
    ) -> None:
        """out (+)= W norm(x) for each (W, out), all reading the same x; `count` is the address of the number of rows.

        Ends with a barrier: all outputs are complete.
        """
        formats: dict[tuple[int, int, bool], list[tuple[TernaryMatrix, Activations]]] = {}
        plain: list[tuple[OrdinaryMatrix, Activations]] = []
        for matrix, out in parts:
            if isinstance(matrix, TernaryMatrix):
                formats.setdefault(matrix.input_format, []).append((matrix, out))
            else:
                plain.append((matrix, out))
        for same in formats.values():
            for i in range(0, len(same), MAX_GROUP):
                self._ternary(program, count, x, norm, same[i : i + MAX_GROUP], add)
        if plain:
            self._plain(program, count, x, norm, plain, add)

    def _ternary(
        self,
        program: Program,
        count: int,
        x: Activations,
        norm: Norm,
        parts: Sequence[tuple[TernaryMatrix, Activations]],
        add: bool,
    ) -> None:
        first, out = parts[0]
        base, scratch = address(self._prepared), self._scratch.arguments
        shape: dict[str, int] = {
            "n": first.cols, "chunk": first.chunk, "header": self._header, "token_bytes": self._stride(first),
        }  # fmt: skip
        program.call(  # one token needs no barrier: every thread prepares for itself
            f"prepare.{self.layout}", 2, count=count, x=x.base, ldx=x.ld, weight=norm.weight, eps=norm.eps, out=base,
            out_stride=self._private, **shape, **scratch,
        )  # fmt: skip
        segments = [
            {
                "codes": address(matrix.codes), "scales": address(matrix.scales), "rows": matrix.rows,
                "superblocks": matrix.superblocks, "column": (to.base - out.base) // 4,
            }
            for matrix, to in parts
        ]  # fmt: skip
        kernel = (
            ("ternary_lut16.blocks" if first.by_block else "ternary_lut16.rows")
            if self.layout == "lut16"
            else "ternary_byte_dot.any"
        )
        program.call(
            kernel, ALWAYS, segments, count=count, prepared=base, prepared_stride=self._private,
            chunk_words=first.words, out=out.base, ldo=out.ld, add=int(add), sums=address(self._sums),
            sums_stride=self._sums_stride, matrices=len(parts), **shape, **scratch,
        )  # fmt: skip

    def _plain(
        self,
        program: Program,
        count: int,
        x: Activations,
        norm: Norm,
        parts: Sequence[tuple[OrdinaryMatrix, Activations]],
        add: bool,
    ) -> None:
        if norm.eps >= 0:
            normed = Activations(address(self._normed), self._normed_ld, x.cols)
            norm_rows(program, count, x, norm, normed)
            x = normed
        for i, (m, out) in enumerate(parts):
            barrier = ALWAYS if i == len(parts) - 1 else NEVER
            ordinary_product(program, count, x, m, out, self._scratch, add=add, barrier=barrier)
