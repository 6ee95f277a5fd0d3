"""Files in the kernels' own layout: used where they lie, the same bits as their source, checked first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.convert import convert
from ternrun.loader.model import open_model
from ternrun.loader.quants.table import encode_trits, trits
from ternrun.runtime.config import EngineConfig
from ternrun.runtime.cpu.memory import address
from ternrun.runtime.cpu.model import CpuModel
from ternrun.runtime.cpu.weights.matrix import TernaryMatrix
from ternrun.runtime.encodings import ENCODINGS
from ternrun.runtime.encodings import words as words_of
from ternrun.runtime.weights import Tensor, Weights
from tests.fakes import fake_gguf, fake_weights
from tests.runtime.cpu.harness import ISAS, Machine, guarded, machine
from tests.runtime.cpu.models import loaded, logits_of
from tests.runtime.cpu.products import Setting, activations, expected, product

IDS = [3, 1, 200, 7, 7, 90]
SOURCES = {  # encoding of the source: that of the kernel's file
    "TQ2_0": "T9_ROW", "I2_S": "T9_ROW", "IQ2_BN": "T9_ROW", "blocks of TQ2_0": "T9_256", "blocks of PQ2_0": "T9_128",
    "blocks of Q2_0": "T9_64",
}  # fmt: skip


def source(kind: str, path: Path) -> Path:
    """A small model; `blocks of`: every block has a scale of its own."""
    encoding = kind.split()[-1]
    weights = fake_weights("bitnet-b1.58", encoding, seed=3)
    if kind != encoding:
        rng, tensors = np.random.default_rng(1), dict(weights.tensors)
        for name, tensor in tensors.items():
            if tensor.type == encoding:
                w, scales = trits(encoding, tensor.data, tensor.shape)
                data = encode_trits(encoding, w, scales * rng.integers(1, 4, scales.shape).astype(np.float32))
                tensors[name] = Tensor(name, encoding, tensor.shape, data, tensor.scale)
        weights = Weights(weights.config, tensors)
    return fake_gguf(path, weights)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", SOURCES)
def test_the_same_bits_as_the_source(kind: str, isa: str, tmp_path: Path) -> None:
    machine(isa)
    path = source(kind, tmp_path / "a.gguf")
    made = convert(path, tmp_path / "b.gguf", "kernel")
    results = []
    for file in (path, made):
        with open_model(file) as opened, loaded(opened.weights, isa, threads=2) as model:
            results.append(logits_of(model, IDS))
            ternary = {n: m for n, m in model.matrices.items() if isinstance(m, TernaryMatrix)}
            assert len(ternary) >= 14
            if file == made:
                kinds = {opened.weights.tensors[n].type for n in ternary}
                assert SOURCES[kind] in kinds
                assert kinds <= {SOURCES[kind], "T9_ROW"}  # a row may be one block
                in_place = {address(m.codes) == address(opened.weights.tensors[n].data) for n, m in ternary.items()}
                assert in_place == {isa == "avx512"}
                assert ("where they lie" if isa == "avx512" else "repacked") in model.description
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("kind", SOURCES)
def test_there_and_back(kind: str, tmp_path: Path) -> None:
    path = source(kind, tmp_path / "a.gguf")
    back = convert(convert(path, tmp_path / "b.gguf", "kernel"), tmp_path / "c.gguf", kind.split()[-1].lower()
                   if kind != "blocks of PQ2_0" else "q2_0")  # fmt: skip
    with open_model(path) as before, open_model(back) as after:
        for name, tensor in before.weights.tensors.items():
            same = after.weights.tensors[name]
            if tensor.type == same.type:
                assert np.array_equal(tensor.data, same.data), name


def top_bit(words: NDArray[np.uint16]) -> None:
    """Bit 15 of a word."""
    words[0, 5, 3] |= 0x8000


def high_index(words: NDArray[np.uint16]) -> None:
    """An index of 27."""
    words[-1, 2, 127] = 27 << 5


def first_index(words: NDArray[np.uint16]) -> None:
    """An index of 31 in the first word."""
    words[0, 0, 0] |= 31


def padding(words: NDArray[np.uint16]) -> None:
    """A weight behind the last of a chunk."""
    words[-1, -1, 64] ^= 1 << 10


@pytest.mark.parametrize("damage", [top_bit, high_index, first_index, padding])
@pytest.mark.parametrize("encoding", ["T9_ROW", "T9_64", "T9_128", "T9_256"])
def test_damaged_words_are_refused(
    encoding: str, damage: Callable[[NDArray[np.uint16]], None], machine: Machine
) -> None:
    weights, name = fake_weights("bitnet-b1.58", "TQ2_0"), "blk.0.ffn_down.weight"
    good = weights.tensors[name]
    codes, scales = trits(good.type, good.data, good.shape)
    data = encode_trits(encoding, codes, scales[:, :1])
    blocks, chunk = -(-good.shape[0] // 128), ENCODINGS[encoding].chunk
    first = words_of(chunk, chunk)
    end = 256 * blocks * (words_of(chunk, good.shape[1]) if encoding == "T9_ROW" else first)
    start = 256 * blocks * first if encoding == "T9_ROW" and damage is padding else 0  # its first chunk has none
    if encoding == "T9_ROW" and damage is not padding:
        end = 256 * blocks * first
    damage(data[start:end].view("<u2").reshape(blocks, -1, 128))
    with pytest.raises(LoadError, match=rf"{name} of type {encoding} is not ternary"):
        trits(encoding, data, good.shape, name=name)
    weights = Weights(weights.config, {**weights.tensors, name: Tensor(name, encoding, good.shape, guarded(data))})
    with pytest.raises(LoadError, match=rf"tensor {name} holds codes that are not ternary"):
        CpuModel(weights, EngineConfig(threads=2), isa=machine.isa)


def test_blocks_of_scale_zero_are_repacked(machine: Machine) -> None:
    """One scale a row but for blocks of scale 0, whatever their codes: these cannot be used as they lie."""
    rng = np.random.default_rng(1)
    w = rng.integers(-1, 2, (130, 512)).astype(np.int8)
    scales = np.where(rng.random((130, 4)) < 0.3, 0, rng.integers(1, 2000, (130, 1)) / 1024).astype(np.float32)
    tensor = Tensor("w", "T9_128", w.shape, guarded(encode_trits("T9_128", w, scales)))
    x = activations((5, 512), rng)
    (found,) = product(machine, [tensor], x, Setting(threads=2))
    np.testing.assert_array_equal(found, expected(tensor, x))
