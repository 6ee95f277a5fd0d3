"""How many bytes each weight encoding takes: the one table that loaders check files against and kernels are chosen by.

The layouts themselves are in docs/formats.md; `loader/quants.py` decodes and encodes them in plain numpy (the
reference), `runtime/cpu/` in machine code.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

Kind = Literal["float", "quantized", "ternary"]


@dataclass(frozen=True, slots=True)
class Encoding:
    """`block` elements of a row take `block_bytes`; a row adds `row_bytes`, a tensor `tensor_bytes`.

    T9, the layout of the table-lookup kernels, has words of nine elements in place of blocks: those of `chunk` inputs
    after those of the inputs before, so a last word of each may not be full, for rows that fill superblocks.
    """

    kind: Kind
    block: int
    block_bytes: int
    row_bytes: int = 0
    tensor_bytes: int = 0
    flat: bool = False  # blocks run on across row ends: only the element count must divide by `block`
    chunk: int = 0  # 0: not T9


ENCODINGS: dict[str, Encoding] = {
    "F32": Encoding("float", 1, 4),
    "F16": Encoding("float", 1, 2),
    "BF16": Encoding("float", 1, 2),
    "Q8_0": Encoding("quantized", 32, 34),
    "Q4_0": Encoding("quantized", 32, 18),
    "Q4_1": Encoding("quantized", 32, 20),
    "Q5_0": Encoding("quantized", 32, 22),
    "Q5_1": Encoding("quantized", 32, 24),
    "Q2_K": Encoding("quantized", 256, 84),
    "Q3_K": Encoding("quantized", 256, 110),
    "Q4_K": Encoding("quantized", 256, 144),
    "Q5_K": Encoding("quantized", 256, 176),
    "Q6_K": Encoding("quantized", 256, 210),
    "IQ4_NL": Encoding("quantized", 32, 18),
    "IQ4_XS": Encoding("quantized", 256, 136),
    "TQ1_0": Encoding("ternary", 256, 54),
    "TQ2_0": Encoding("ternary", 256, 66),
    "Q2_0": Encoding("ternary", 64, 18),  # code 3 (+2d) is legal: checked at load
    "PQ2_0": Encoding("ternary", 128, 34),
    "PTQ1_0": Encoding("ternary", 128, 28),
    "Q1_0": Encoding("ternary", 128, 18),
    "I2_S": Encoding("ternary", 128, 32, tensor_bytes=32, flat=True),
    "IQ1_BN": Encoding("ternary", 64, 13, row_bytes=2),
    "IQ2_BN": Encoding("ternary", 64, 16, row_bytes=4),
    "IQ2_BN_R4": Encoding("ternary", 64, 16, row_bytes=4),  # four rows interleaved
    "HF_PACKED": Encoding("ternary", 4, 1, flat=True),  # four quarter-matrices in one byte; scale in Tensor.scale
    "Q1_58": Encoding("ternary", 128, 32 + 4),  # codes of all rows, then one f32 scale per 128 weights
    "T9_ROW": Encoding("ternary", 1, 0, chunk=252),  # a scale a row; 252 inputs whose int16 sums cannot overflow
    "T9_64": Encoding("ternary", 64, 0, chunk=64),  # a scale a block
    "T9_128": Encoding("ternary", 128, 0, chunk=128),
    "T9_256": Encoding("ternary", 256, 0, chunk=256),
}
SUPERBLOCK = 128  # rows of T9 that lie together


def words(chunk: int, cols: int) -> int:
    """16-bit words that a row of `cols` elements takes in T9."""
    return sum((min(chunk, cols - start) + 8) // 9 for start in range(0, cols, chunk))


def nbytes(type_name: str, shape: tuple[int, ...]) -> int | None:
    """Bytes a tensor of this type and numpy-order shape takes, or None where its shape does not divide into blocks."""
    enc = ENCODINGS[type_name]
    cols, rows = shape[-1], prod(shape[:-1])
    if (rows * cols if enc.flat else cols) % enc.block:
        return None
    if type_name in ("IQ2_BN_R4", "HF_PACKED") and rows % 4:
        return None
    if enc.chunk:
        groups = cols // enc.block if enc.block > 1 else 1
        return -(-rows // SUPERBLOCK) * SUPERBLOCK * (2 * words(enc.chunk, cols) + 4 * groups)
    return rows * cols // enc.block * enc.block_bytes + rows * enc.row_bytes + enc.tensor_bytes
