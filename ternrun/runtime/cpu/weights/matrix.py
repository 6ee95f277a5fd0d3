"""Weight matrices as kernels read them: ternary ones repacked, ordinary ones directly from the file's map."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.runtime import encodings
from ternrun.runtime.cpu.memory import address, aligned, padded_vector, round_up, small_pages
from ternrun.runtime.cpu.program.program import Scratch
from ternrun.runtime.cpu.weights.repack import Packing
from ternrun.runtime.cpu.weights.scales import F32, row_scales
from ternrun.runtime.encodings import ENCODINGS, nbytes
from ternrun.runtime.weights import Tensor

WORD_CHUNK = ENCODINGS["T9_ROW"].chunk
SUPERBLOCK = {"lut16": encodings.SUPERBLOCK, "byte_dot": 32}


@dataclass(frozen=True, slots=True)
class OrdinaryMatrix:
    """Rows in their file's encoding. A row of `stride` bytes decodes to `padded` floats, of which `cols` are used."""

    tensor: Tensor
    rows: int
    cols: int
    padded: int
    stride: int
    data: NDArray[np.uint8]

    @property
    def read_bytes(self) -> int:
        """Bytes that one product reads."""
        return self.rows * self.stride

    @classmethod
    def of(cls, tensor: Tensor) -> OrdinaryMatrix:
        """Wrap a tensor without a copy, except rows of plain floats that are not a multiple of 16 long, which are
        padded.
        """
        rows, cols = tensor.shape
        encoding = ENCODINGS[tensor.type]
        stride, data = nbytes(tensor.type, (1, cols)) or 0, tensor.data
        padded = round_up(cols, 16)
        if padded != cols:
            wide = padded * encoding.block_bytes
            data = aligned(rows * wide)
            data[: rows * wide].reshape(rows, wide)[:, :stride] = tensor.data.reshape(rows, stride)
            stride = wide
        return cls(tensor, rows, cols, padded, stride, data)


@dataclass(slots=True)
class TernaryMatrix:
    """A ternary matrix in the kernels' layout, with one scale a row or one a block of `chunk` columns."""

    name: str
    rows: int
    cols: int
    chunk: int
    words: int  # 16-bit words of a chunk (layout `lut16`)
    superblocks: int
    by_block: bool
    codes: NDArray[np.uint8]
    code_bytes: int  # without padding at the end
    scales: NDArray[np.float32]
    status: NDArray[np.int64]
    keep: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def read_bytes(self) -> int:
        """Bytes of codes and scales that one product reads."""
        return self.code_bytes + 4 * self.rows * (-(-self.cols // self.chunk) if self.by_block else 1)

    @property
    def input_format(self) -> tuple[int, int, bool]:
        """Matrices with equal values can share one prepared input."""
        return self.chunk, self.words, self.by_block

    def check(self) -> None:
        """Raises LoadError if packing found a code that is not ternary."""
        if self.status[0]:
            raise LoadError(f"tensor {self.name} holds codes that are not ternary")

    @classmethod
    def of(cls, tensor: Tensor, layout: str, packing: Packing, scratch: Scratch) -> TernaryMatrix:
        """Append to `packing` the call that fills the codes, or that checks codes which need no repacking."""
        scales, gaps = row_scales(tensor)
        if layout == "lut16" and ENCODINGS[tensor.type].chunk and gaps is None:
            return cls._in_place(tensor, scales, packing, scratch)
        return cls._packed(tensor, scales, gaps, layout, packing, scratch)

    @classmethod
    def _in_place(cls, tensor: Tensor, scales: F32, packing: Packing, scratch: Scratch) -> TernaryMatrix:
        """A matrix whose codes stay in the file."""
        (rows, cols), chunk = tensor.shape, ENCODINGS[tensor.type].chunk
        blocks = -(-rows // encodings.SUPERBLOCK)
        size = 2 * encodings.SUPERBLOCK * blocks * encodings.words(chunk, cols)
        matrix = cls(
            tensor.name, rows, cols, chunk, (chunk + 8) // 9, blocks, scales.shape[1] > 1, tensor.data, size,
            _laid(scales, encodings.SUPERBLOCK * blocks), aligned(16).view(np.int64),
        )  # fmt: skip
        packing.call(
            "check.lut16", tensor.data[:0], codes=address(tensor.data), superblocks=blocks, n=cols, chunk=chunk,
            status=address(matrix.status), **scratch.arguments,
        )  # fmt: skip
        return matrix

    @classmethod
    def _packed(
        cls, tensor: Tensor, scales: F32, gaps: F32 | None, layout: str, packing: Packing, scratch: Scratch
    ) -> TernaryMatrix:
        """A matrix whose codes are repacked into new memory."""
        rows, cols = tensor.shape
        groups = scales.shape[1]
        by_block = groups > 1
        height = SUPERBLOCK[layout]
        blocks = (rows + height - 1) // height
        if layout == "lut16":
            chunk = cols // groups if by_block else WORD_CHUNK
            words = (chunk + 8) // 9
            size = 2 * height * blocks * encodings.words(chunk, cols)
        else:
            chunk, words = cols // groups if by_block else cols, 0
            size = height * blocks * round_up(cols, 16) // 4
        matrix = cls(
            tensor.name, rows, cols, chunk, words, blocks, by_block, small_pages(size), size,
            _laid(scales, height * blocks), aligned(16).view(np.int64),
        )  # fmt: skip
        group, table = 0, 0
        if gaps is not None:
            held = padded_vector(gaps)
            matrix.keep.append(held)
            group, table = cols // gaps.shape[1], address(held)
        packing.call(
            f"pack.{tensor.type}-{layout}", tensor.data, source=address(tensor.data), rows=rows, n=cols,
            out=address(matrix.codes), superblocks=blocks, chunk=chunk, chunk_words=words,
            status=address(matrix.status), scales=table, group=group, **scratch.arguments,
        )  # fmt: skip
        return matrix


def _laid(scales: F32, padded: int) -> F32:
    """Transpose scales (rows, groups) to (groups, padded rows), padded with zeros."""
    rows, groups = scales.shape
    laid = aligned(4 * groups * padded).view(np.float32)
    laid[: groups * padded].reshape(groups, padded)[:, :rows] = scales.T
    return laid
