"""From paths to GGUF files: what only looks like one, truncated downloads, split models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from ternrun.errors import LoadError
from ternrun.loader.gguf.file import open_gguf
from ternrun.loader.unsupported.explain import explain_errors
from tests.fuzz.build import Array, Bytes, Tensor, f32
from tests.fuzz.build import gguf as build

LOOKALIKES = {
    b"": r"is empty \(0 bytes\); download it again",
    b"\n  <!DOCTYPE html><html>": "is a web page, not a model; download the file itself",
    b"\xef\xbb\xbf<html>": "is a web page",
    b"version https://git-lfs.github.com/spec/v1\noid": "is a Git LFS pointer.* 'git lfs pull'",
    b"PK\x03\x04model.gguf": "is a zip archive",
    b'{"error":"Repository not found"}': "is a JSON text",
    b"tjgg\x03\x00\x00\x00": "is of a format older than GGUF; convert the model again",
    b"FUGG\x00\x00\x00\x03": "is big-endian",
    b'\x40\x00\x00\x00\x00\x00\x00\x00{"__metadata__"': "looks like a safetensors file",
    b"GGU": r"has only 3 bytes; download it again",
    b"\x7fELF\x02\x01\x01": "is a program or library, not a GGUF file",
    b"\x00\xff\x00\xff": r"is not a GGUF file \(it starts with ",
}


@pytest.mark.parametrize("content", LOOKALIKES)
def test_what_only_looks_like_a_model(save, content):
    path = save(content)
    with pytest.raises(LoadError, match=f"^{path} {LOOKALIKES[content]}"), explain_errors(path):
        open_gguf(path)
    with pytest.raises(LoadError, match=rf"^{path} is not a GGUF file \(it starts with "):
        open_gguf(path)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(LoadError, match="does not exist"):
        open_gguf(tmp_path / "none.gguf")
    with pytest.raises(LoadError, match=r"is a folder; name the \.gguf file in it"):
        open_gguf(tmp_path)
    with pytest.raises(LoadError, match="cannot be read"):
        open_gguf("a\0b")
    (tmp_path / "file").touch()
    with pytest.raises(LoadError, match="cannot be read: Not a directory"):
        open_gguf(tmp_path / "file" / "m.gguf")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LoadError, match="is not a regular file"):
        open_gguf(tmp_path / "pipe")


def test_big_endian_files_are_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "be.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor("a", np.zeros(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(LoadError, match="header is big-endian; only little-endian GGUF files are read"):
        open_gguf(tmp_path / "be.gguf")


def test_a_truncated_download_says_how_much_is_missing(save):
    whole = bytes(build({"a": ("u32", 1)}, [f32("a"), f32("b", 256)]).data)
    path = save(whole[:-100])
    with pytest.raises(LoadError, match=rf"tensor 'b' ends 100 bytes after the end of the file \({len(whole) - 100}"):
        open_gguf(path)


def test_every_truncation_is_refused(save):
    whole = bytes(build({"a": ("string", "text"), "b": ("u16", 2)}, [f32("a"), f32("b")]).data)
    for n in range(len(whole)):
        with pytest.raises(LoadError):
            open_gguf(save(whole[:n]))


# ---- split models

Parts = Callable[..., list[Path]]


@pytest.fixture
def split(save: Callable[..., Path]) -> Parts:
    """Write a model in three parts; `keys` and `tensors` replace those of some part."""

    def write(keys: dict[int, dict[str, Any]] | None = None, tensors: dict[int, list[Tensor]] | None = None):
        paths = []
        for i in range(3):
            meta: dict[Any, Any] = {
                "split.no": ("u16", i),
                "split.count": ("u16", 3),
                "split.tensors.count": ("i32", 3),
            }
            if i == 0:
                meta["general.architecture"] = ("string", "llama")
            meta |= (keys or {}).get(i, {})
            content: Bytes = build(meta, (tensors or {}).get(i, [f32(f"t{i}", 32 + i)]))
            paths.append(save(content, f"m-{i + 1:05}-of-00003.gguf"))
        return paths

    return write


def test_any_part_opens_the_whole(split):
    paths = split()
    for path in paths:
        model = open_gguf(path)
        assert list(model.tensors) == ["t0", "t1", "t2"]
        assert [t.shape for t in model.tensors.values()] == [(32,), (33,), (34,)]
        assert model.metadata["general.architecture"] == "llama"
        assert model.paths == tuple(paths)
        assert model.size == sum(p.stat().st_size for p in paths)


def test_a_missing_part_is_named(split):
    paths = split()
    paths[1].unlink()
    for path in (paths[0], paths[2]):
        with pytest.raises(LoadError, match=r"m-00002-of-00003.gguf is missing: .* is one of 3 parts"):
            open_gguf(path)
    with pytest.raises(LoadError, match=r"m-00002-of-00003.gguf does not exist"):
        open_gguf(paths[1])


@pytest.mark.parametrize(
    ("keys", "tensors", "fault"),
    [
        ({1: {"split.no": ("u16", 2)}}, {}, r"m-00002.*: keys split.no and split.count say part 2 \(from 0\) of 3"),
        ({2: {"split.count": ("u16", 4)}}, {}, r"m-00003.*: keys split.no and split.count say part 2 \(from 0\) of 4"),
        ({0: {"split.tensors.count": ("i32", 9)}}, {}, "key split.tensors.count says 9, but the parts hold 3"),
        ({0: {"split.tensors.count": ("string", "3")}}, {}, "key split.tensors.count says '3', but"),
        ({1: {"split.no": ("u16", Array("u16", (1, 1)))}}, {}, r"m-00002.*: .* say part array"),
        ({1: {"split.count": ("u16", Array("u16", (3, 3)))}}, {}, r"m-00002.*: .* say part 1 \(from 0\) of array"),
        ({0: {"split.tensors.count": ("i32", Array("i32", (3, 3)))}}, {}, "split.tensors.count says array"),
        ({}, {1: [f32("t0")]}, "m-00002.*: tensor 't0' occurs in two parts"),
    ],
)
def test_parts_that_do_not_fit_together(split, keys, tensors, fault):
    with pytest.raises(LoadError, match=fault):
        open_gguf(split(keys, tensors)[0])


def test_names_that_are_not_those_of_parts(split, tmp_path):
    path = split()[0].rename(tmp_path / "renamed.gguf")
    with pytest.raises(LoadError, match=r"renamed.gguf: .* keep the names NAME-00001-of-0000N.gguf"):
        open_gguf(path)
    for name in ("m-00004-of-00003.gguf", "m-00000-of-00003.gguf", "m-00001-of-99999.gguf"):
        with pytest.raises(LoadError, match="has an impossible name"):
            open_gguf(tmp_path / name)


def test_one_of_one_needs_no_keys(save):
    assert open_gguf(save(build({}, [f32()]), "m-00001-of-00001.gguf")).tensors.keys() == {"a"}
