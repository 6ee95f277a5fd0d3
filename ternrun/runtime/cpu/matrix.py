"""Weights as kernels want them: ternary ones repacked, ordinary ones straight from the file's map."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.runtime.cpu.memory import SLACK, address, aligned, padded_vector, round_up
from ternrun.runtime.cpu.packing import Packing
from ternrun.runtime.cpu.program import Scratch
from ternrun.runtime.cpu.scales import row_scales
from ternrun.runtime.encodings import ENCODINGS, nbytes
from ternrun.runtime.weights import Tensor

WORD_CHUNK = 252  # inputs whose int16 sums cannot overflow: 84 groups of at most 3 * 127
SUPERBLOCK = {"words": 128, "bytes": 32}


@dataclass(frozen=True, slots=True)
class Plain:
    """Rows in their file's encoding; a row of `stride` bytes decodes to `padded` floats, `cols` of them used."""

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
    def of(cls, tensor: Tensor) -> Plain:
        """Zero-copy, except where rows of plain floats do not fill whole vectors."""
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
class Ternary:
    """A repacked ternary matrix: one scale a row, or one a block of `chunk` inputs."""

    name: str
    rows: int
    cols: int
    chunk: int
    words: int  # 16-bit words a chunk takes (layout "words")
    superblocks: int
    by_block: bool
    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    status: NDArray[np.int64]
    keep: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def read_bytes(self) -> int:
        """Bytes of codes and scales that one product reads."""
        return self.codes.size - SLACK + 4 * self.rows * (-(-self.cols // self.chunk) if self.by_block else 1)

    @property
    def input_format(self) -> tuple[int, int, bool]:
        """Matrices with equal values can share one prepared input."""
        return self.chunk, self.words, self.by_block

    def check(self) -> None:
        """Raises LoadError when packing met a code that is not ternary."""
        if self.status[0]:
            raise LoadError(f"tensor {self.name} holds codes that are not ternary")

    @classmethod
    def pack(cls, tensor: Tensor, layout: str, packing: Packing, scratch: Scratch) -> Ternary:
        """Allocate, and append to `packing` the call that fills the codes."""
        take, (rows, cols) = packing.arena.take, tensor.shape
        scales, gaps = row_scales(tensor)
        groups = scales.shape[1]
        by_block = groups > 1
        height = SUPERBLOCK[layout]
        blocks = (rows + height - 1) // height
        if layout == "words":
            chunk = cols // groups if by_block else WORD_CHUNK
            words = (chunk + 8) // 9
            total = sum((min(chunk, cols - s) + 8) // 9 for s in range(0, cols, chunk))
            size = 2 * height * blocks * total
        else:
            chunk, words = cols // groups if by_block else cols, 0
            size = height * blocks * round_up(cols, 16) // 4
        laid = aligned(4 * groups * height * blocks).view(np.float32)
        laid[: groups * height * blocks].reshape(groups, height * blocks)[:, :rows] = scales.T
        matrix = cls(
            tensor.name, rows, cols, chunk, words, blocks, by_block, take(size), laid, aligned(16).view(np.int64)
        )
        group, table = 0, 0
        if gaps is not None:
            held = padded_vector(gaps)
            matrix.keep.append(held)
            group, table = cols // gaps.shape[1], address(held)
        packing.call(
            f"pack.{tensor.type}-{layout}", address(tensor.data), rows, cols, address(matrix.codes), blocks, chunk,
            words, scratch.base, scratch.stride, address(matrix.status), table, group, source=tensor.data,
        )  # fmt: skip
        return matrix
