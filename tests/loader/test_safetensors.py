"""The safetensors reader against the library's own files, hand-made faults and seeded damage."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ternrun.errors import LoadError
from ternrun.loader.hf.safetensors import INDEX, open_file, open_folder, parse
from tests.fakes_hf import write_safetensors
from tests.fuzz.mutate import mutate

ROUNDS = 3000


def blob(header: Any, body: bytes = b"") -> np.ndarray[Any, Any]:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return np.frombuffer(struct.pack("<Q", len(text)) + text + body, np.uint8)


def entry(begin: int, end: int, dtype: str = "U8", shape: list[Any] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(12, dtype=np.float32).reshape(3, 4), "b.c": np.arange(5, dtype=np.uint8),
        "half": np.ones((2, 2, 2), np.float16), "none": np.zeros((0, 4), np.float32),
        "one": np.array(2.5),
    }  # fmt: skip
    save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "np"})
    tensors = open_folder(tmp_path)
    assert tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        tensor = tensors[name]
        assert tensor.shape == array.shape
        assert tensor.data.tobytes() == array.tobytes()
        assert not tensor.data.flags.writeable


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (np.zeros(3, np.uint8), "only 3 bytes"),
        (np.frombuffer(struct.pack("<Q", 2**63) + b"{}", np.uint8), "a header of 9223372036854775808 bytes cannot be"),
        (np.frombuffer(b"version https://git-lfs.github.com/spec/v1\noid", np.uint8), "Git LFS pointer"),
        (blob(b"[]"), "not a JSON object|not a table"),
        (blob(b"{" * 5000), "not sound JSON"),
        (blob(b'{"a":' * 5000), "not sound JSON"),
        (blob(b"[" * 9000), "not a table of tensors"),
        (blob(b'{"a": 1e999'), "not sound JSON"),
        (blob(b'{"\xff": 1}'), "not sound JSON"),
        (blob(b'{"a":{},"a":{}}'), "a key occurs twice"),
        (blob({"__metadata__": 3}), "__metadata__ is not a table"),
        (blob({"a": 3}), "entry of tensor 'a'"),
        (blob({"a": entry(0, 4) | {"extra": 1}}, b"1234"), "entry of tensor 'a'"),
        (blob({"a": entry(0, 4, "Q4")}, b"1234"), "dtype 'Q4'"),
        (blob({"a": entry(0, 4, ["F32"])}, b"1234"), "dtype"),  # type: ignore[arg-type]
        (blob({"a": entry(0, 4, shape=[-4])}, b"1234"), "impossible shape"),
        (blob({"a": entry(0, 4, shape=[2.0, 2])}, b"1234"), "impossible shape"),
        (blob({"a": entry(0, 4, shape=[True, 4])}, b"1234"), "impossible shape"),
        (blob({"a": entry(0, 4, shape=[2**40, 2**40])}, b"1234"), "impossible shape"),
        (blob({"a": entry(0, 4, shape=[1] * 9)}, b"1234"), "impossible shape"),
        (blob({"a": entry(4, 0, shape=[0])}, b"1234"), "does not fill"),
        (blob({"a": entry(0, 4, "F32", [2])}, b"1234"), "does not fill its bytes"),
        (blob({"a": entry(0, 4), "b": entry(2, 6)}, b"123456"), "'b' overlaps another one"),
        (blob({"a": entry(0, 2), "b": entry(3, 6)}, b"123456"), "'b' leaves a gap"),
        (blob({"a": entry(0, 8)}, b"123456"), "inside tensor 'a'; download it again"),
        (blob({"a": entry(0, 4)}, b"123456"), "2 bytes after its last tensor"),
    ],
)
def test_unsound_files_are_refused(data: np.ndarray[Any, Any], fault: str) -> None:
    with pytest.raises(LoadError, match=fault):
        parse(data, "x.safetensors")


def test_shards_are_joined_by_their_index(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "m-1.safetensors", {"a": ("U8", (2,), b"12")})
    write_safetensors(tmp_path / "m-2.safetensors", {"b": ("U8", (2,), b"34")})
    with pytest.raises(LoadError, match="holds 2 safetensors files and no"):
        open_folder(tmp_path)
    weight_map = {"a": "m-1.safetensors", "b": "m-2.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    assert open_folder(tmp_path)["b"].data.tobytes() == b"34"
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map | {"c": "m-2.safetensors"}}))
    with pytest.raises(LoadError, match="'c', which .* promises, is missing"):
        open_folder(tmp_path)
    write_safetensors(tmp_path / "m-2.safetensors", {"a": ("U8", (2,), b"12"), "b": ("U8", (2,), b"34")})
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(LoadError, match="'a' is in more than one file"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    "file", ["../x.safetensors", "/etc/x.safetensors", "a\\b.safetensors", ".x.safetensors", "x.bin", "C:x.safetensors"]
)
def test_index_may_only_name_files_of_its_folder(file: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(LoadError, match="not a safetensors file of this folder"):
        open_folder(tmp_path)


def test_odd_paths(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(LoadError, match="not a file"):
        open_folder(tmp_path)
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(LoadError, match="is empty"):
        open_file(tmp_path / "empty.safetensors")
    (tmp_path / INDEX).write_text("[1]")
    with pytest.raises(LoadError, match="not a JSON object"):
        open_folder(tmp_path)


def test_seeded_damage_ends_in_a_load_error_or_in_sound_tensors(tmp_path: Path) -> None:
    arrays = {f"layer.{i}.weight": np.arange(24, dtype=np.float32).reshape(4, 6) for i in range(6)}
    save_file(arrays, tmp_path / "m.safetensors", metadata={"format": "np"})
    whole = (tmp_path / "m.safetensors").read_bytes()
    rng = Random(0)
    faults: list[str] = []
    for _ in range(ROUNDS):
        data = mutate(whole, rng, [(0, 8), (0, 1)])
        try:
            tensors = parse(np.frombuffer(data, np.uint8), "m.safetensors")
        except LoadError as e:
            faults.append(str(e))
        else:
            assert sum(t.data.size for t in tensors.values()) <= len(data)
    assert len(faults) > ROUNDS // 2
    assert all("m.safetensors" in fault and len(fault) < 400 for fault in faults)
