"""Ternary layouts in plain numpy: where codes and scales lie (`split`, `join`), and how codes are packed.

A code is the weight in units of its scale: -1, 0, +1, and +2 where two bits hold 3, which some types allow.
Layouts and their sources: docs/formats.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.loader.quants.ordinary import f16, fields, to_f16
from ternrun.loader.quants.t9 import pack_words, unpack_words
from ternrun.runtime.encodings import ENCODINGS

U8 = NDArray[np.uint8]
I8 = NDArray[np.int8]
F32 = NDArray[np.float32]

# weights of a row that share a scale, where not all do
GROUPS = {
    "TQ1_0": 256, "TQ2_0": 256, "Q2_0": 64, "PQ2_0": 128, "PTQ1_0": 128, "Q1_0": 128, "Q1_58": 128, "T9_64": 64,
    "T9_128": 128, "T9_256": 256,
}  # fmt: skip
T9 = ("T9_ROW", "T9_64", "T9_128", "T9_256")
HALF_SCALES = ("TQ1_0", "TQ2_0", "Q2_0", "PQ2_0", "PTQ1_0", "Q1_0", "IQ1_BN")  # the others hold f32, HF_PACKED none
_SCALE_FIRST = ("Q2_0", "PQ2_0", "Q1_0")


def group_size(type_name: str, cols: int) -> int:
    """Weights of a row that share one scale."""
    return GROUPS.get(type_name, cols)


# ---- codes <-> bytes: (n, bytes) <-> (n, weights)


def _pack_fields(codes: U8, bits: int, lanes: int) -> U8:
    """The inverse of `fields`."""
    per_byte = 8 // bits
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    parts = codes.reshape(len(codes), -1, per_byte, lanes) << shifts
    packed: U8 = np.bitwise_or.reduce(parts, axis=2)
    return packed.reshape(len(codes), -1)


def _two_bits(b: U8, lanes: int) -> I8:
    return fields(b, 2, lanes).view(np.int8) - np.int8(1)


def _pack_two_bits(codes: I8, lanes: int) -> U8:
    return _pack_fields((codes + 1).view(np.uint8), 2, lanes)


def _reversed_lanes(codes: NDArray[Any]) -> NDArray[Any]:
    """I2_S keeps the first 32 of 128 codes in the top bits."""
    return codes.reshape(-1, 4, 32)[:, ::-1].reshape(len(codes), -1)


def _signs(b: U8) -> I8:
    return np.unpackbits(b, axis=1, bitorder="little").view(np.int8) * 2 - 1


def _pack_signs(codes: I8) -> U8:
    return np.packbits(codes > 0, axis=1, bitorder="little")


def _digits(b: U8, n: int, *, lowest_first: bool = False) -> I8:
    """`n` base-3 digits of each byte: (..., m) -> (..., n, m); a byte is ceil(256/243 * value of five digits)."""
    powers = np.array([81, 27, 9, 3, 1] if lowest_first else [1, 3, 9, 27, 81], np.uint8)[:n, None]
    top: U8 = b[..., None, :] * powers  # modulo 256: drops the digits above
    digits: I8 = ((top.astype(np.uint16) * 3) >> 8).astype(np.int8)
    digits -= 1
    return digits


def _pack_digits(codes: I8, *, lowest_first: bool = False) -> U8:
    """(..., n, m) -> (..., m); the inverse of `_digits`."""
    powers = np.array([1, 3, 9, 27, 81] if lowest_first else [81, 27, 9, 3, 1], np.uint32)
    digits = (codes + 1).astype(np.uint32) * powers[: codes.shape[-2], None]
    packed: U8 = ((digits.sum(axis=-2, dtype=np.uint32) * 256 + 242) // 243).astype(np.uint8)
    return packed


def _base3(b: U8, lanes: tuple[int, int, int]) -> I8:
    """Three runs of lanes: two with five digits a byte, one with four."""
    cuts = np.split(b, np.cumsum(lanes)[:2], axis=1)
    parts = [_digits(c, n).reshape(len(b), -1) for c, n in zip(cuts, (5, 5, 4), strict=True)]
    return np.concatenate(parts, axis=1)


def _pack_base3(codes: I8, lanes: tuple[int, int, int]) -> U8:
    counts = [5 * lanes[0], 5 * lanes[1]]
    cuts = np.split(codes, np.cumsum(counts), axis=1)
    parts = [_pack_digits(c.reshape(len(codes), n, m)) for c, n, m in zip(cuts, (5, 5, 4), lanes, strict=True)]
    return np.concatenate(parts, axis=1)


def _iq1_bn(b: U8) -> I8:
    """12 bytes of five digits and one of four: group i of 16 = 15 digits of three bytes, then digit i of the last."""
    fives = _digits(b[:, :12, None], 5, lowest_first=True).reshape(len(b), 4, 15)
    last = _digits(b[:, 12:], 4, lowest_first=True)
    return np.concatenate([fives, last], axis=2).reshape(len(b), 64)


def _pack_iq1_bn(codes: I8) -> U8:
    groups = codes.reshape(-1, 4, 16)
    fives = _pack_digits(groups[:, :, :15].reshape(-1, 12, 5, 1), lowest_first=True)[..., 0]
    return np.concatenate([fives, _pack_digits(groups[:, :, 15:], lowest_first=True)], axis=1)


_SEED_CODES = np.array([0, 1, 0, -1], np.int8)


def _seed(b: U8) -> I8:
    return _SEED_CODES[fields(b, 2, 1)]


UNPACK: dict[str, Callable[[U8], I8]] = {
    "TQ1_0": partial(_base3, lanes=(32, 16, 4)),
    "PTQ1_0": partial(_base3, lanes=(16, 8, 2)),
    "TQ2_0": partial(_two_bits, lanes=32),
    "Q2_0": partial(_two_bits, lanes=1),
    "PQ2_0": partial(_two_bits, lanes=1),
    "Q1_0": _signs,
    "I2_S": lambda b: _reversed_lanes(_two_bits(b, 32)),
    "IQ1_BN": _iq1_bn,
    "IQ2_BN": partial(_two_bits, lanes=16),
    "Q1_58": _seed,
}
PACK: dict[str, Callable[[I8], U8]] = {
    "TQ1_0": partial(_pack_base3, lanes=(32, 16, 4)),
    "PTQ1_0": partial(_pack_base3, lanes=(16, 8, 2)),
    "TQ2_0": partial(_pack_two_bits, lanes=32),
    "Q2_0": partial(_pack_two_bits, lanes=1),
    "PQ2_0": partial(_pack_two_bits, lanes=1),
    "Q1_0": _pack_signs,
    "I2_S": lambda codes: _pack_two_bits(_reversed_lanes(codes), 32),
    "IQ1_BN": _pack_iq1_bn,
    "IQ2_BN": partial(_pack_two_bits, lanes=16),
    "Q1_58": lambda codes: _pack_fields(codes.view(np.uint8) & np.uint8(3), 2, 1),
}


# ---- whole tensors: bytes <-> codes (rows, cols), scales (rows, groups)


def _unpack_blocks(name: str, b: U8, rows: int, cols: int) -> tuple[I8, F32]:
    blocks = b.reshape(-1, ENCODINGS[name].block_bytes)
    codes, scales = (blocks[:, 2:], blocks[:, :2]) if name in _SCALE_FIRST else (blocks[:, :-2], blocks[:, -2:])
    return UNPACK[name](codes).reshape(rows, cols), f16(scales).reshape(rows, -1)


def _pack_blocks(name: str, codes: I8, scales: F32) -> U8:
    packed = PACK[name](codes.reshape(-1, ENCODINGS[name].block))
    halves = to_f16(scales.reshape(-1, 1))
    return np.concatenate([halves, packed] if name in _SCALE_FIRST else [packed, halves], axis=1)


def _unpack_rows(name: str, b: U8, rows: int, cols: int) -> tuple[I8, F32]:
    enc = ENCODINGS[name]
    table = b.reshape(rows, -1)
    head, blocks = table[:, : enc.row_bytes], table[:, enc.row_bytes :].reshape(-1, enc.block_bytes)
    scales = f16(head) if enc.row_bytes == 2 else head.view("<f4").astype(np.float32)
    return UNPACK[name](blocks).reshape(rows, cols), scales


def _pack_rows(name: str, codes: I8, scales: F32) -> U8:
    packed = PACK[name](codes.reshape(-1, 64)).reshape(len(codes), -1)
    head = to_f16(scales) if ENCODINGS[name].row_bytes == 2 else scales.astype("<f4").view(np.uint8)
    return np.concatenate([head, packed], axis=1)


def _unpack_rows4(_: str, b: U8, rows: int, cols: int) -> tuple[I8, F32]:
    table = b.reshape(rows // 4, -1)
    scales = table[:, :16].view("<f4").reshape(rows, 1).astype(np.float32)
    quads = fields(table[:, 16:].reshape(-1, 1), 2, 1).view(np.int8) - np.int8(1)  # byte (l, row, i), field j
    codes = quads.reshape(rows // 4, cols // 64, 4, 4, 4, 4)  # -> row, column 16 l + 4 j + i
    return codes.transpose(0, 3, 1, 2, 5, 4).reshape(rows, cols), scales


def _pack_rows4(_: str, codes: I8, scales: F32) -> U8:
    quads = codes.reshape(len(codes) // 4, 4, -1, 4, 4, 4).transpose(0, 2, 3, 1, 5, 4).reshape(-1, 4)
    packed = _pack_two_bits(quads, 1).reshape(len(codes) // 4, -1)
    return np.concatenate([scales.astype("<f4").reshape(-1, 4).view(np.uint8), packed], axis=1)


def _unpack_i2_s(name: str, b: U8, rows: int, cols: int) -> tuple[I8, F32]:
    end = rows * cols // 4
    scale = b[end : end + 4].view("<f4").astype(np.float32)
    codes = UNPACK[name](b[:end].reshape(-1, 32))
    return codes.reshape(rows, cols), np.repeat(scale[:, None], rows, axis=0)


def _pack_i2_s(name: str, codes: I8, scales: F32) -> U8:
    tail = np.repeat(scales[:1, :1].astype("<f4"), 8).view(np.uint8)
    return np.concatenate([PACK[name](codes.reshape(-1, 128)).ravel(), tail])


def _unpack_hf(_: str, b: U8, rows: int, cols: int) -> tuple[I8, F32]:
    return _two_bits(b.reshape(1, -1), b.size).reshape(rows, cols), np.ones((rows, 1), np.float32)


def _pack_hf(_: str, codes: I8, scales: F32) -> U8:
    return _pack_two_bits(codes.reshape(1, -1), codes.size // 4)


def _unpack_seed(name: str, b: U8, rows: int, cols: int) -> tuple[I8, F32]:
    end = rows * cols // 4
    scales = b[end:].view("<f4").astype(np.float32).reshape(rows, -1)
    return UNPACK[name](b[:end].reshape(rows, -1)), scales


def _pack_seed(name: str, codes: I8, scales: F32) -> U8:
    return np.concatenate([PACK[name](codes).ravel(), scales.astype("<f4").view(np.uint8).ravel()])


UNPACK_TENSOR: dict[str, Callable[[str, U8, int, int], tuple[I8, F32]]] = {
    **dict.fromkeys(("TQ1_0", "TQ2_0", "Q2_0", "PQ2_0", "PTQ1_0", "Q1_0"), _unpack_blocks),
    **dict.fromkeys(("IQ1_BN", "IQ2_BN"), _unpack_rows),
    "IQ2_BN_R4": _unpack_rows4,
    "I2_S": _unpack_i2_s,
    "HF_PACKED": _unpack_hf,
    "Q1_58": _unpack_seed,
    **dict.fromkeys(T9, unpack_words),
}
PACK_TENSOR: dict[str, Callable[[str, I8, F32], U8]] = {
    **dict.fromkeys(("TQ1_0", "TQ2_0", "Q2_0", "PQ2_0", "PTQ1_0", "Q1_0"), _pack_blocks),
    **dict.fromkeys(("IQ1_BN", "IQ2_BN"), _pack_rows),
    "IQ2_BN_R4": _pack_rows4,
    "I2_S": _pack_i2_s,
    "HF_PACKED": _pack_hf,
    "Q1_58": _pack_seed,
    **dict.fromkeys(T9, pack_words),
}
