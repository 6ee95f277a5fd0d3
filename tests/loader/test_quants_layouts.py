"""Ternary layouts: blocks worked out by hand, and random bytes against loops that follow the C sources line by line."""

from __future__ import annotations

import numpy as np
import pytest

from ternrun.loader.quants.table import decode
from ternrun.runtime.encodings import nbytes

ONE, HALF = "003c", "0038"  # 1 and 0.5 as fp16
F_HALF, F_TWO = "0000003f", "00000040"  # 0.5 and 2 as f32


def weights(n: int, **values: float) -> list[float]:
    """n zeros but for _i = value."""
    out = [0.0] * n
    for key, value in values.items():
        out[int(key[1:])] = value
    return out


# 85 = 01 01 01 01 is four zeros of two bits; 128 is ceil(121 * 256 / 243): the digits 1 1 1 1 1, five zeros
BY_HAND = {
    # byte 0: elements 0, 32, 64, 96 = +1 -1 0 +1 -> 10 00 01 10
    "I2_S": (128, "86" + "55" * 31 + F_HALF * 8, weights(128, _0=0.5, _32=-0.5, _96=0.5)),
    # byte 0: elements 0, 32, 64, 96 from the low bits up; byte 33: 129, 161, 193, 225
    "TQ2_0": (256, "56" + "55" * 32 + "15" + "55" * 30 + ONE, weights(256, _0=1, _225=-1)),
    # byte 0 of qs: 2 1 1 1 1 -> 202 -> ceil(212.8) = 213; last byte of qh: elements 243, 247, 251, 255: 1 1 1 0 (0)
    "TQ1_0": (256, "d5" + "80" * 50 + "7c" + HALF, weights(256, _0=0.5, _255=-0.5)),
    "PTQ1_0": (128, "d5" + "80" * 24 + "7c" + HALF, weights(128, _0=0.5, _127=-0.5)),
    # byte 0: elements 0..3 from the low bits up: +1 0 -1 +2
    "Q2_0": (64, HALF + "c6" + "55" * 15, weights(64, _0=0.5, _2=-0.5, _3=1)),
    "PQ2_0": (128, HALF + "55" * 31 + "15", weights(128, _127=-0.5)),
    # byte 1: elements 8..15 from the low bits up
    "Q1_0": (128, ONE + "ff" + "fe" + "ff" * 14, [-1.0 if i == 8 else 1.0 for i in range(128)]),
    # ql[0], lowest digit first: element 0 = +1 -> 122 -> 129; `extra`: elements 15, 31, 47, 63 = 0 0 0 -1 -> 13 -> 14
    "IQ1_BN": (64, HALF + "81" + "80" * 11 + "0e", weights(64, _0=0.5, _63=-0.5)),
    # byte 1: elements 1, 17, 33, 49
    "IQ2_BN": (64, F_TWO + "55" + "95" + "55" * 14, weights(64, _49=2)),
    # codes 00 = 0, 01 = +1, 11 = -1, 10 = 0, from the low bits up
    "Q1_58": (128, "b4" + "00" * 31 + F_TWO, weights(128, _1=2, _2=-2)),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_blocks_by_hand(name):
    n, text, wanted = BY_HAND[name]
    raw = np.frombuffer(bytes.fromhex(text), np.uint8)
    assert decode(name, raw, (1, n)).tolist() == [wanted]


def test_four_interleaved_rows_by_hand():
    codes = ["55"] * 64
    codes[4 * 2 + 1 + 16 * 3] = "56"  # row 2, lane 1, quarter 3, field 0 -> column 16 * 3 + 1
    codes[0] = "15"  # row 0, lane 0, quarter 0, field 3 -> column 12
    raw = np.frombuffer(bytes.fromhex(F_HALF + F_TWO + F_TWO + F_HALF + "".join(codes)), np.uint8)
    got = decode("IQ2_BN_R4", raw, (4, 64))
    assert np.argwhere(got).tolist() == [[0, 12], [2, 49]]
    assert (got[0, 12], got[2, 49]) == (-0.5, 2)


def test_quarter_matrices_by_hand():
    """Bits 2i of byte row r hold weight row i * out / 4 + r; here 8 x 2."""
    raw = np.array([0b10_01_00_01, 0x55, 0x55, 0b00_01_01_10], np.uint8)
    wanted = np.zeros((8, 2))
    wanted[2, 0], wanted[6, 0] = -1, 1
    wanted[1, 1], wanted[7, 1] = 1, -1
    np.testing.assert_array_equal(decode("HF_PACKED", raw, (8, 2)), wanted)


# ---- loops after the C sources: dequantize_row_* of llama.cpp, ik_llama.cpp, bitnet.cpp


def f16(b: bytes) -> float:
    return float(np.frombuffer(b, np.float16)[0])


def f32(b: bytes) -> float:
    return float(np.frombuffer(b, np.float32)[0])


def loop_tq1_0(b: bytes, runs=((0, 32, 5), (32, 16, 5), (48, 4, 4)), at=52):
    for start, lanes, digits in runs:
        for n in range(digits):
            for m in range(lanes):
                q = (b[start + m] * 3**n) & 255
                yield (((q * 3) >> 8) - 1) * f16(b[at : at + 2])


def loop_ptq1_0(b: bytes):
    return loop_tq1_0(b, ((0, 16, 5), (16, 8, 5), (24, 2, 4)), 26)


def loop_tq2_0(b: bytes):
    for j in range(0, 64, 32):
        for shift in range(4):
            for m in range(32):
                yield (((b[j + m] >> (shift * 2)) & 3) - 1) * f16(b[64:])


def loop_q2_0(b: bytes):
    for j in range(4 * (len(b) - 2)):
        yield (((b[2 + j // 4] >> (2 * (j % 4))) & 3) - 1) * f16(b[:2])


def loop_q1_0(b: bytes):
    for j in range(128):
        yield f16(b[:2]) * (1 if b[2 + j // 8] >> (j % 8) & 1 else -1)


def loop_i2_s(b: bytes):
    n = 4 * (len(b) - 32)
    for i in range(n):
        block, j = divmod(i, 128)
        yield (((b[32 * block + j % 32] >> (6 - 2 * (j // 32))) & 3) - 1) * f32(b[n // 4 : n // 4 + 4])


def loop_iq1_bn(b: bytes):
    multipliers = (81, 27, 9, 3, 1)
    for start in range(2, len(b), 13):
        for group in range(4):
            for k in range(3):
                for m in multipliers:
                    v = (b[start + 3 * group + k] * m) & 255
                    yield (((v + (v >> 1)) >> 7) - 1) * f16(b[:2])
            v = (b[start + 12] * multipliers[group]) & 255
            yield (((v + (v >> 1)) >> 7) - 1) * f16(b[:2])


def loop_iq2_bn(b: bytes):
    for start in range(4, len(b), 16):
        for k in range(4):
            for j in range(16):
                yield (((b[start + j] >> (2 * k)) & 3) - 1) * f32(b[:4])


def loop_iq2_bn_r4(b: bytes):
    blocks = (len(b) - 16) // 64
    out = np.zeros((4, 64 * blocks))
    for ib in range(blocks):
        for k in range(4):
            for lane in range(4):
                for i in range(4):
                    q = b[16 + 64 * ib + 4 * k + i + 16 * lane]
                    for f in range(4):
                        out[k, 64 * ib + 16 * lane + i + 4 * f] = f32(b[4 * k : 4 * k + 4]) * (((q >> (2 * f)) & 3) - 1)
    return out.ravel()


LOOPS = {  # loop, shape it decodes at a time
    "TQ1_0": (loop_tq1_0, (1, 256)), "TQ2_0": (loop_tq2_0, (1, 256)), "PTQ1_0": (loop_ptq1_0, (1, 128)),
    "Q2_0": (loop_q2_0, (1, 64)), "PQ2_0": (loop_q2_0, (1, 128)), "Q1_0": (loop_q1_0, (1, 128)),
    "I2_S": (loop_i2_s, (3, 640)), "IQ1_BN": (loop_iq1_bn, (1, 192)), "IQ2_BN": (loop_iq2_bn, (1, 192)),
    "IQ2_BN_R4": (loop_iq2_bn_r4, (4, 192)),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOPS)
def test_random_bytes_decode_as_the_c_sources_do(name):
    loop, (rows, cols) = LOOPS[name]
    size = nbytes(name, (rows, cols))
    assert size is not None
    raw = np.random.default_rng(4).integers(0, 256, 5 * size, dtype=np.uint8)
    raw[raw >= 0x70] ^= 0x40  # keeps every scale finite
    repeat = 1 if name == "I2_S" else 5
    wanted = [w for i in range(repeat) for w in loop(raw[i * size : (i + 1) * size].tobytes())]
    got = decode(name, raw[: repeat * size], (repeat * rows, cols))
    np.testing.assert_array_equal(got.ravel(), np.array(wanted, np.float32))


def test_blocks_of_i2_s_run_on_across_rows():
    raw = np.random.default_rng(5).integers(0, 256, 3 * 32 + 32, dtype=np.uint8)
    raw[-32:-28] = np.array([0.25], np.float32).view(np.uint8)
    np.testing.assert_array_equal(decode("I2_S", raw, (4, 96)).ravel(), decode("I2_S", raw, (1, 384)).ravel())
