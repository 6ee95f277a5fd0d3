"""Writing GGUF, read back by the gguf package and by ourselves."""

from __future__ import annotations

from dataclasses import dataclass

import gguf
import numpy as np
import pytest

from ternrun.errors import UsageError
from ternrun.loader.gguf.file import open_gguf, write_gguf
from ternrun.loader.gguf.types import TYPE_IDS
from ternrun.runtime.encodings import ENCODINGS, nbytes
from ternrun.runtime.weights import Tensor

METADATA = {
    "general.architecture": "llama", "general.name": "Größe ☃", "yes": True, "count": 30, "negative": -3,
    "wide": 2**40, "wider": 2**63, "base": 0.5, "vast": 1e300, "half": np.float64(1e300), "byte": np.uint8(7),
    "tokens": ["a", "", "☃"], "types": [1, 3], "signed": [-1, 2**31 - 1], "flags": [True, False],
    "scores": np.array([0.5, -1], np.float32), "none": [],
}  # fmt: skip
TYPES = {
    "yes": 7, "count": 4, "negative": 5, "wide": 11, "wider": 10, "base": 6, "vast": 12, "half": 12, "byte": 0,
    "types": 5, "signed": 5, "flags": 7, "scores": 6, "none": 9,
}  # fmt: skip


def tensor(name: str, type_name: str, *shape: int) -> Tensor:
    size = nbytes(type_name, shape)
    assert size is not None
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    return Tensor(name, type_name, shape, data)


def plain(value):
    return value.tolist() if hasattr(value, "tolist") else value


@pytest.mark.parametrize("alignment", [32, 4096])
def test_the_gguf_package_reads_it(tmp_path, alignment):
    known = [t for t in ENCODINGS if t in gguf.GGMLQuantizationType.__members__]
    tensors = [tensor(f"t.{t}", t, 3, 256) for t in known] + [tensor("v", "F32", 7), tensor("x", "F16", 2, 3, 5, 4)]
    write_gguf(tmp_path / "m.gguf", METADATA | {"general.alignment": alignment}, tensors)
    theirs = gguf.GGUFReader(tmp_path / "m.gguf")
    for key, value in METADATA.items():
        field = theirs.fields[key]
        assert field.contents() == plain(value), key
        assert field.types[-1] == TYPES.get(key, 8), key
    for ours, t in zip(tensors, theirs.tensors, strict=True):
        assert (t.name, t.tensor_type.name) == (ours.name, ours.type)
        assert tuple(t.shape[::-1]) == ours.shape
        assert t.data_offset % alignment == 0
        assert t.data.tobytes() == ours.data.tobytes()


def test_we_read_it(tmp_path):
    tensors = [tensor(f"t.{t}", t, 64, 512) for t in ENCODINGS if t in TYPE_IDS]
    assert len(tensors) == len(ENCODINGS) - 2
    write_gguf(tmp_path / "m.gguf", METADATA, tensors)
    model = open_gguf(tmp_path / "m.gguf")
    assert {k: plain(v) for k, v in model.metadata.items()} == {k: plain(v) for k, v in METADATA.items()}
    for ours, t in zip(tensors, model.tensors.values(), strict=True):
        assert (t.name, t.type, t.shape) == (ours.name, ours.type, ours.shape)
        assert np.array_equal(t.checked().data, ours.data)


def test_what_was_read_is_written_to_the_same_bytes(tmp_path):
    usual = {k: v for k, v in METADATA.items() if k != "byte"}  # a narrow scalar is written wide
    write_gguf(tmp_path / "m.gguf", usual, [tensor("t", "Q4_0", 3, 64)])
    model = open_gguf(tmp_path / "m.gguf")
    write_gguf(tmp_path / "again.gguf", model.metadata, list(model.tensors.values()))
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "m.gguf").read_bytes()


def test_data_may_be_computed_when_its_turn_comes(tmp_path):
    @dataclass
    class Late:
        name: str = "late"
        type: str = "F32"
        shape: tuple[int, ...] = (4,)

        @property
        def data(self):
            return np.arange(4, dtype=np.float32).view(np.uint8)

    write_gguf(tmp_path / "m.gguf", {}, [Late()])
    assert open_gguf(tmp_path / "m.gguf").tensors["late"].data.view(np.float32).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("metadata", "tensors", "fault"),
    [
        ({"a": None}, [], "metadata key 'a' has a value that GGUF cannot hold"),
        ({"a": 2**64}, [], "metadata key 'a' has a value that GGUF cannot hold"),
        ({"a": [[1], [2]]}, [], "metadata key 'a' has a value"),
        ({"a": {"b": 1}}, [], "metadata key 'a' has a value"),
        ({"a": np.float16(1)}, [], "metadata key 'a' has a value"),
        ({}, [tensor("t", "HF_PACKED", 4, 4)], "a GGUF file cannot hold type HF_PACKED"),
        ({}, [Tensor("t", "TQ2_0", (4, 100), np.zeros(1, np.uint8))], "of shape .* cannot be of type TQ2_0"),
        ({}, [Tensor("t", "F32", (4,), np.zeros(15, np.uint8))], "should have 16 bytes, but has 15"),
    ],
)
def test_what_cannot_be_written_leaves_no_file(tmp_path, metadata, tensors, fault):
    (tmp_path / "m.gguf").write_bytes(b"before")
    with pytest.raises(UsageError, match=fault):
        write_gguf(tmp_path / "m.gguf", metadata, tensors)
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]
    assert (tmp_path / "m.gguf").read_bytes() == b"before"
