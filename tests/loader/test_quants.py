"""Encodings against the gguf package, whose numpy code is llama.cpp's, and what they refuse."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize, quantize
from hypothesis import given
from hypothesis import strategies as st

from ternrun.errors import LoadError, UsageError
from ternrun.loader.quants.ordinary import DECODERS
from ternrun.loader.quants.table import decode, encode, encode_trits, trits
from ternrun.loader.quants.ternary import GROUPS, PACK_TENSOR, UNPACK_TENSOR
from ternrun.runtime.encodings import ENCODINGS, nbytes

TERNARY = [n for n, e in ENCODINGS.items() if e.kind == "ternary"]
ENCODED = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "TQ1_0", "TQ2_0")


def test_every_encoding_is_decoded():
    assert {*DECODERS, *UNPACK_TENSOR} == {*ENCODINGS}
    assert {*UNPACK_TENSOR} == {*PACK_TENSOR} == {*TERNARY}


@pytest.mark.parametrize("name", [*DECODERS, "TQ1_0", "TQ2_0"])
def test_decodes_any_bytes_as_the_gguf_package_does(name):
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (40, 3 * ENCODINGS[name].block_bytes), dtype=np.uint8)
    with np.errstate(all="ignore"):  # random halves are sometimes infinite
        wanted = dequantize(blocks, gguf.GGMLQuantizationType[name])
    np.testing.assert_array_equal(decode(name, blocks.ravel(), wanted.shape), wanted)


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("kind", ["normal", "tiny", "ternary", "halves", "zero"])
def test_encodes_to_the_bytes_of_the_gguf_package(name, kind):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(9, 512)).astype(np.float32)
    if kind == "tiny":
        x *= np.float32(1e-7)
    if kind == "ternary":
        x = np.float32(0.37) * rng.integers(-1, 2, (9, 512)).astype(np.float32)
    if kind == "halves":
        x = rng.integers(-8, 9, (9, 512)).astype(np.float32) / 8
        x[:, ::256] = 1
    if kind == "zero":
        x = np.zeros((9, 512), np.float32)
    wanted = quantize(x, gguf.GGMLQuantizationType[name])
    assert encode(name, x).tobytes() == wanted.tobytes()


@given(st.data())
def test_ternary_weights_survive_every_encoding(data):
    name = data.draw(st.sampled_from(TERNARY))
    rows, cols = 4 * data.draw(st.integers(1, 3)), 256 * data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    weights = rng.integers(-1, 2, (rows, cols)).astype(np.int8)
    if name == "Q1_0":
        weights[weights == 0] = 1
    groups = cols // GROUPS.get(name, cols)
    scales = rng.integers(1, 1000, (rows, groups)).astype(np.float32) / 512  # fp16 holds them exactly
    if name in ("I2_S", "HF_PACKED"):
        scales[:] = 1 if name == "HF_PACKED" else scales[0, 0]
    raw = encode_trits(name, weights, scales)
    assert raw.dtype == np.uint8
    assert raw.shape == (nbytes(name, (rows, cols)),)
    got, got_scales = trits(name, raw, (rows, cols))
    assert got.dtype == np.int8
    np.testing.assert_array_equal(got, weights)
    np.testing.assert_array_equal(got_scales, scales)
    dense = (weights.reshape(rows, groups, -1) * scales[:, :, None]).reshape(rows, cols)
    np.testing.assert_array_equal(decode(name, raw, (rows, cols)), dense)


@pytest.mark.parametrize("name", ["I2_S", "Q2_0", "IQ1_BN", "IQ2_BN", "PTQ1_0", "TQ1_0"])
def test_encode_rounds_in_units_of_the_largest(name):
    x = np.random.default_rng(3).uniform(-2.9, 2.9, (8, 256)).astype(np.float32)
    x[:, ::32] = np.sign(x[:, ::32]) * 3  # the largest of every group, whatever its width
    wanted = np.where(np.abs(x) >= 1.5, np.sign(x), 0)
    got, scales = trits(name, encode(name, x), x.shape)
    np.testing.assert_array_equal(got, wanted)
    assert (scales == 3).all()


def test_wider_groups_of_scales_are_repeated():
    weights = np.ones((4, 512), np.int8)
    per_row = np.array([[1], [2], [3], [4]], np.float32)
    for name, groups in {"TQ2_0": 2, "Q2_0": 8, "PQ2_0": 4, "IQ2_BN": 1}.items():
        scales = trits(name, encode_trits(name, weights, per_row), (4, 512))[1]
        np.testing.assert_array_equal(scales, np.repeat(per_row, groups, axis=1))
    # narrower groups fit if they agree
    narrow = np.repeat(per_row, 8, axis=1)
    np.testing.assert_array_equal(trits("TQ2_0", encode_trits("TQ2_0", weights, narrow), (4, 512))[1], narrow[:, :2])


# ---- what is refused


def ternary_bytes(name: str) -> np.ndarray:
    return encode_trits(name, np.ones((4, 256), np.int8), np.ones((4, 1), np.float32))


@pytest.mark.parametrize("name", ["TQ2_0", "Q2_0", "PQ2_0", "I2_S", "IQ2_BN", "IQ2_BN_R4", "HF_PACKED"])
def test_code_3_is_decoded_but_is_not_ternary(name):
    raw = ternary_bytes(name)
    assert (decode(name, raw, (4, 256)) == 1).all()
    at = 20  # within the codes of each of them
    raw[at] = 0xFF
    assert (np.sort(decode(name, raw, (4, 256)).ravel())[-5:] == [1, 2, 2, 2, 2]).all()
    with pytest.raises(LoadError, match=f"blk.0.x of type {name} is not ternary: it holds the code 3"):
        trits(name, raw, (4, 256), name="blk.0.x")


@pytest.mark.parametrize("name", [n for n in TERNARY if n != "HF_PACKED"])
@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf])
def test_scales_that_are_not_finite(name, scale):
    raw = ternary_bytes(name)
    wide = name in ("I2_S", "Q1_58") or name.startswith("T9") or ENCODINGS[name].row_bytes == 4
    ones = np.array([1], np.float32 if wide else np.float16).tobytes()
    bad = np.array([scale], np.float32 if wide else np.float16).tobytes()
    raw = np.frombuffer(raw.tobytes().replace(ones, bad, 1), np.uint8)
    with pytest.raises(LoadError, match=f"x of type {name} has a scale that is not finite"):
        trits(name, raw, (4, 256), name="x")
    assert not np.isfinite(decode(name, raw, (4, 256))).all()


@pytest.mark.parametrize("name", ENCODINGS)
def test_too_few_or_too_many_bytes(name):
    size = nbytes(name, (4, 256))
    assert size is not None
    for n in (0, size - 1, size + 1):
        with pytest.raises(LoadError, match=rf"x of shape \[4, 256\] and type {name} takes {size} bytes, but has {n}"):
            decode(name, np.zeros(n, np.uint8), (4, 256), name="x")


def test_ordinary_types_are_not_ternary():
    with pytest.raises(LoadError, match="x is of type Q8_0, which is not ternary"):
        trits("Q8_0", np.zeros(34, np.uint8), (1, 32), name="x")


ONES = np.ones((4, 256), np.int8)


@pytest.mark.parametrize(
    ("name", "weights", "scales", "fault"),
    [
        ("TQ2_0", ONES[:, :100], [[1]], r"of shape \[4, 100\] do not divide into blocks of TQ2_0"),
        ("IQ2_BN_R4", ONES[:3], [[1]], r"of shape \[3, 256\] do not divide"),
        ("TQ9_9", ONES, [[1]], "unknown type 'TQ9_9'"),
        ("F16", ONES, [[1]], "ternary weights cannot be written as F16"),
        ("Q1_0", ONES * 0, [[1]], "Q1_0 cannot hold zeros"),
        ("I2_S", ONES, [[1], [1], [1], [2]], "I2_S holds one scale a tensor, but the scales differ"),
        ("TQ2_0", ONES, [[1, 2, 3, 4]], "4 scales a row do not fit TQ2_0, which holds 1"),
        ("TQ2_0", np.ones((4, 512), np.int8), [[1, 1, 1]], "3 scales a row do not fit TQ2_0, which holds 2"),
        ("TQ2_0", ONES, [[np.nan]], "a scale is not finite"),
        ("TQ2_0", ONES, [[65520]], "scales of 65520 and more do not fit TQ2_0"),
        ("IQ1_BN", ONES, [[1e9]], "scales of 65520 and more do not fit IQ1_BN"),
    ],
)
def test_ternary_weights_that_do_not_fit(name, weights, scales, fault):
    with pytest.raises(UsageError, match=fault):
        encode_trits(name, weights, np.array(scales, np.float32))


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("F16", 65520.0, "weights of 65520 and more do not fit F16"),
        ("TQ2_0", np.nan, "weights that are not finite"),
        ("F32", np.inf, "weights that are not finite"),
        ("TQ1_0", 1e6, "scales of 65520 and more do not fit TQ1_0"),
        ("Q8_0", 1e8, "weights of 8.32104e.06 and more do not fit Q8_0"),
        ("BF16", 3.4e38, "do not fit BF16"),
        ("Q4_K", 1.0, "weights cannot be written as Q4_K"),
        ("HF_PACKED", 1.0, "weights cannot be written as HF_PACKED"),  # it would lose the scale
    ],
)
def test_weights_that_do_not_fit(name, value, fault):
    with pytest.raises(UsageError, match=fault):
        encode(name, np.full((4, 256), value, np.float32))
