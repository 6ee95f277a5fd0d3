"""Products with ternary weights against exact integer sums in numpy, bit for bit on every instruction set."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ternrun.errors import LoadError
from ternrun.loader.quants.table import encode_trits, trits
from ternrun.runtime.encodings import ENCODINGS
from ternrun.runtime.weights import Tensor
from tests.runtime.cpu.harness import ISAS, TERNARY, Machine, guarded
from tests.runtime.cpu.harness import machine as machine_of
from tests.runtime.cpu.products import Setting, activations, expected, product, ternary_tensor

BLOCKED = [
    name
    for name in TERNARY
    if ENCODINGS[name].tensor_bytes + ENCODINGS[name].row_bytes == 0 and name not in ("HF_PACKED", "T9_ROW")
]
FREE = {"I2_S", "HF_PACKED", "T9_ROW"}  # encodings whose rows may have any length
ROWS = (1, 31, 32, 33, 100, 127, 128, 129, 200, 257)
WIDTHS = {  # columns by block; 252 inputs make a chunk, 9 a word
    256: (256, 512, 768, 1024), 128: (128, 256, 384, 640), 64: (64, 192, 256, 320),
    4: (4, 8, 12, 84, 248, 252, 256, 504, 508, 1020),
}  # fmt: skip


def shapes(encoding: str) -> list[tuple[int, int]]:
    """Shapes that are awkward and legal."""
    widths = WIDTHS[4 if encoding in FREE else ENCODINGS[encoding].block]
    by_four = encoding in ("IQ2_BN_R4", "HF_PACKED")
    found = [(rows + (-rows % 4 if by_four else 0), widths[i % len(widths)]) for i, rows in enumerate(ROWS)]
    if encoding == "I2_S":
        found = [(rows + (-rows % (128 // math.gcd(128, cols))), cols) for rows, cols in found]
        found += [(128, cols) for cols in (1, 7, 251, 253, 257)]
    if encoding == "HF_PACKED":
        found += [(64, cols) for cols in (1, 9, 15, 251, 253, 505)]
    return found


@pytest.mark.parametrize("encoding", TERNARY)
@pytest.mark.parametrize("scales", ["tensor", "row", "block"])
def test_any_shape_tokens_and_threads(machine: Machine, encoding: str, scales: str) -> None:
    if (scales == "block" and encoding not in BLOCKED) or (scales == "row" and encoding in FREE):
        scales = "tensor"  # all that this encoding can hold
    rng = np.random.default_rng(TERNARY.index(encoding))
    for i, shape in enumerate(shapes(encoding)):
        tensor = ternary_tensor(encoding, shape, rng, scales=scales)
        x = activations((1 + i % 9, shape[1]), rng)
        (found,) = product(machine, [tensor], x, Setting(threads=1 + i % 3))
        np.testing.assert_array_equal(found, expected(tensor, x), f"{shape}, {len(x)} tokens")


def test_scales_of_zero_silence_their_blocks(machine: Machine) -> None:
    """One scale a row but for blocks of scale 0, as converters write them: the row is still one exact sum."""
    rng = np.random.default_rng(1)
    w = rng.integers(-1, 2, (130, 1024)).astype(np.int8)
    scales = np.where(rng.random((130, 4)) < 0.3, 0, rng.integers(1, 2000, (130, 1)) / 1024).astype(np.float32)
    scales[7] = 0
    tensor = Tensor("w", "TQ2_0", w.shape, guarded(encode_trits("TQ2_0", w, scales)))
    silent = np.where(np.repeat(scales, 256, 1) == 0, 0, w).astype(np.int8)
    bare = Tensor("w", "IQ2_BN", w.shape, encode_trits("IQ2_BN", silent, scales.max(1, keepdims=True)))
    for tokens in (1, 5):
        x = activations((tokens, 1024), rng)
        np.testing.assert_array_equal(product(machine, [tensor], x)[0], expected(bare, x))


@pytest.mark.parametrize("scales", ["tensor", "block"])
@pytest.mark.parametrize("cols", [256, 512, 2048])
def test_largest_sums_do_not_overflow(machine: Machine, scales: str, cols: int) -> None:
    """All activations at 127 or -127, all weights +1 or -1: no int16 or int32 sum may wrap."""
    rng = np.random.default_rng(2)
    for w in (1, -1):
        tensor = ternary_tensor("TQ2_0", (128, cols), rng, scales=scales, w=w)
        for tokens in (1, 2, 4, 7):
            x = np.ones((tokens, cols), np.float32) * np.array([[1.0], [-3.0]] * 4, np.float32)[:tokens]
            found = product(machine, [tensor], x)[0]
            np.testing.assert_array_equal(found, expected(tensor, x))
            exact = 127 * w * np.sign(x[:, :1]) * trits_sum(tensor) * np.abs(x[:, :1]) / 127
            np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)


def trits_sum(tensor: Tensor) -> np.ndarray:
    """Sum of scales times columns per row, for weights that are all alike."""
    w, scales = trits(tensor.type, tensor.data, tensor.shape)
    return np.abs(w[:, :1]).T * scales.astype(np.float64).sum(1) * (tensor.shape[1] / scales.shape[1])


@settings(max_examples=25, deadline=None)
@given(
    encoding=st.sampled_from(["TQ1_0", "IQ2_BN", "HF_PACKED"]), rows=st.integers(1, 70), width=st.integers(1, 9),
    tokens=st.integers(1, 20), threads=st.integers(1, 5), seed=st.integers(0, 2**32 - 1), add=st.booleans(),
)  # fmt: skip
def test_any_product_is_the_same_on_every_instruction_set(
    encoding: str, rows: int, width: int, tokens: int, threads: int, seed: int, add: bool
) -> None:
    rng = np.random.default_rng(seed)
    tensor = ternary_tensor(encoding, (4 * rows, ENCODINGS[encoding].block * width), rng)
    x = activations((tokens, tensor.shape[1]), rng)
    wanted = expected(tensor, x)
    for name in ISAS:
        (found,) = product(machine_of(name), [tensor], x, Setting(threads=threads, add=add, room=tokens + seed % 3))
        np.testing.assert_array_equal(found, wanted + np.float32(-12345) if add else wanted)


def test_matrices_share_an_input_after_its_norm(machine: Machine) -> None:
    """Up to seven matrices of one input, of several formats; each as if it were alone."""
    rng = np.random.default_rng(3)
    kinds = ["TQ2_0", "TQ1_0", "I2_S", "TQ2_0", "IQ2_BN", "Q2_0", "HF_PACKED"]
    scales = ["tensor", "block", "tensor", "row", "row", "block", "tensor"]
    tensors = []
    for i, (kind, scale) in enumerate(zip(kinds, scales, strict=True)):
        made = ternary_tensor(kind, (64 + 4 * i, 512), rng, scales=scale)
        tensors.append(Tensor(f"w{i}", made.type, made.shape, made.data, made.scale))
    weight = rng.uniform(0.5, 1.5, 512).astype(np.float32)
    for tokens in (1, 6):
        x = activations((tokens, 512), rng)
        setting = Setting(threads=2, norm=weight)
        together = product(machine, tensors, x, setting)
        for tensor, found in zip(tensors, together, strict=True):
            np.testing.assert_array_equal(found, product(machine, [tensor], x, setting)[0])


def test_norm_before_the_product(machine: Machine) -> None:
    """RMSNorm, then quantization: what falls close to the middle between two codes may go either way, all else not."""
    rng = np.random.default_rng(4)
    w = np.eye(512, dtype=np.int8)
    tensor = Tensor("w", "TQ2_0", w.shape, encode_trits("TQ2_0", w, np.ones((512, 1), np.float32)))
    x, weight = activations((6, 512), rng), rng.uniform(0.5, 1.5, 512).astype(np.float32)
    exact = x / np.sqrt(np.square(x, dtype=np.float64).mean(1, keepdims=True) + 1e-5) * weight
    peaks = np.abs(exact).max(1, keepdims=True)
    (found,) = product(machine, [tensor], x, Setting(norm=weight))
    steps = exact * 127 / np.maximum(peaks, 1e-5)
    clear = np.abs(steps - np.floor(steps) - 0.5) > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_allclose(found[clear], (np.rint(steps) * peaks / 127)[clear], rtol=2e-6)


@pytest.mark.parametrize("encoding", ["TQ2_0", "I2_S", "IQ2_BN", "IQ2_BN_R4", "HF_PACKED"])
def test_codes_that_are_not_ternary_are_refused(machine: Machine, encoding: str) -> None:
    """The fourth two-bit code, once, anywhere: first, last, in the tail of a row."""
    rng = np.random.default_rng(5)
    tensor = ternary_tensor(encoding, (64, 84 if encoding in FREE else 256), rng)
    w = trits(encoding, tensor.data, tensor.shape)[0]
    for row, col in ((0, 0), (63, tensor.shape[1] - 1), (17, tensor.shape[1] - 3)):
        spoiled = w.copy()
        spoiled[row, col] = 2
        data = encode_trits(encoding, spoiled, np.ones((1, 1), np.float32))
        with pytest.raises(LoadError, match="tensor w holds codes that are not ternary"):
            product(machine, [Tensor("w", encoding, tensor.shape, data)], activations((1, tensor.shape[1]), rng))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scales_that_are_no_numbers_are_refused(bad: float) -> None:
    on = machine_of(ISAS[-1])
    rng = np.random.default_rng(6)
    tensor = ternary_tensor("IQ2_BN", (8, 64), rng)
    data = tensor.data.copy()
    data[20 * 3 : 20 * 3 + 4] = np.array([bad], np.float32).view(np.uint8)
    for broken in (
        Tensor("w", "IQ2_BN", (8, 64), data),
        Tensor("w", "IQ2_BN", (8, 64), tensor.data, bad),
        Tensor("w", "IQ2_BN", (8, 64), tensor.data, 1e39),  # infinite as float32
    ):
        with pytest.raises(LoadError, match="tensor w has a scale that is not a finite number"):
            product(on, [broken], activations((1, 64), rng))
