"""Reading GGUF: against the gguf package, and on files built byte by byte."""

from __future__ import annotations

import struct

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ternrun.errors import LoadError
from ternrun.loader.gguf.file import StringArray, open_gguf
from ternrun.loader.gguf.strings import walk
from tests.fuzz.build import KINDS, Array
from tests.fuzz.build import gguf as build
from tests.smollm2 import smollm2

# ---- against the gguf package


def test_reads_what_the_gguf_package_writes(tmp_path):
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 30)
    writer.add_float32("llama.rope.freq_base", 500000.0)
    writer.add_float64("f64", 0.1)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_int64("negative", -(2**40))
    writer.add_uint64("large", 2**63)
    writer.add_string("general.name", "Größe ☃ 😀")
    tokens = ["", "a", "Ġthe", "😀" * 100, "\0", "x" * 70000]
    writer.add_array("tokenizer.ggml.tokens", tokens)
    writer.add_array("tokenizer.ggml.scores", [0.5, -1.0])
    writer.add_array("tokenizer.ggml.token_type", [1, 3])
    weights = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    writer.add_tensor("a.weight", weights)
    blocks = gguf.quants.quantize(weights, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("b.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    model = open_gguf(path)
    assert model.version == 3
    assert model.size == path.stat().st_size
    assert model.paths == (path,)
    meta = dict(model.metadata)
    assert meta["llama.block_count"] == 30
    assert meta["f64"] == 0.1
    assert meta["tokenizer.ggml.add_bos_token"] is True
    assert (meta["negative"], meta["large"]) == (-(2**40), 2**63)
    assert meta["general.name"] == "Größe ☃ 😀"
    assert meta["tokenizer.ggml.tokens"].tolist() == tokens
    assert meta["tokenizer.ggml.scores"].tolist() == [0.5, -1.0]
    assert meta["tokenizer.ggml.token_type"].tolist() == [1, 3]
    a, b = model.tensors["a.weight"], model.tensors["b.weight"]
    assert (a.type, a.shape) == ("F32", (3, 64))
    assert (b.type, b.shape) == ("Q8_0", (3, 64))
    assert a.data.tobytes() == weights.tobytes()
    assert b.data.tobytes() == blocks.tobytes()


def test_reads_a_real_model_as_the_gguf_package_does():
    path = smollm2()
    ours, theirs = open_gguf(path), gguf.GGUFReader(path)
    for name, kv in theirs.fields.items():
        if not name.startswith("GGUF."):
            value = ours.metadata[name]
            step = 1 if name.endswith("tokens") else 50  # contents() of all merges takes seconds
            got = value.tolist()[::step] if hasattr(value, "tolist") else value
            assert got == kv.contents(slice(None, None, step)), name
    assert list(ours.tensors) == [t.name for t in theirs.tensors]
    for t in theirs.tensors:
        tensor = ours.tensors[t.name].checked()
        assert tensor.type == t.tensor_type.name
        assert tensor.shape == tuple(int(n) for n in reversed(t.shape))
        assert np.array_equal(tensor.data, t.data.view(np.uint8).ravel())


@pytest.mark.parametrize("version", [2, 3])
def test_every_kind_of_value(save, version):
    values = {
        "u8": 200, "i8": -100, "u16": 60000, "i16": -30000, "u32": 2**32 - 1, "i32": -(2**31), "f32": 0.5,
        "bool": True, "string": "text", "u64": 2**64 - 1, "i64": -(2**63), "f64": 1e300,
    }  # fmt: skip
    assert values.keys() == KINDS.keys()
    singles = {k: (k, v) for k, v in values.items()}
    arrays = {f"{k}s": (k, Array(k, (v, v))) for k, v in values.items()}
    meta = open_gguf(save(build({**singles, **arrays, "none": ("u8", Array("u8", ()))}, version=version))).metadata
    for kind, value in values.items():
        assert meta[kind] == value
        assert type(meta[kind]) is type(value)
        assert meta[f"{kind}s"].tolist() == [value, value]
    assert meta["none"].tolist() == []


# ---- string arrays


@pytest.mark.parametrize("fill", ["usual", "long", "empty", "nul", "huge"])
def test_a_large_vocabulary(save, fill):
    n = 128_256
    tokens = [f"Ġtoken{i}é" for i in range(n)]
    tokens[1000:1020] = [""] * 20
    if fill == "long":
        tokens[::3] = [t * 40 for t in tokens[::3]]
    if fill == "empty":
        tokens = [""] * n
    if fill == "nul":
        tokens[::7] = ["\0" * (i % 19) for i in range(len(tokens[::7]))]
    if fill == "huge":
        tokens[5] = "x" * 1_000_000
    vocabulary = Array("string", tuple(tokens))
    meta = open_gguf(save(build({"tokens": ("string", vocabulary), "after": ("u32", 7)}))).metadata
    assert isinstance(meta["tokens"], StringArray)
    assert meta["tokens"].tolist() == tokens
    assert meta["after"] == 7


texts = st.lists(st.one_of(st.binary(max_size=20), st.just(bytes(9)), st.binary(min_size=250, max_size=300)))


@given(texts)
def test_walk_finds_every_string(strings):
    raw = b"".join(struct.pack("<Q", len(s)) + s for s in strings)
    data = np.frombuffer(b"??" + raw, np.uint8)
    ends = np.cumsum([2] + [8 + len(s) for s in strings])
    found = walk(data, 2, len(strings))
    assert found is not None
    assert found.tolist() == ends.tolist()
    assert walk(data, 2, len(strings) + 1) is None
    if strings:
        assert walk(data[:-1], 2, len(strings)) is None


@given(st.lists(st.one_of(st.text(max_size=8), st.just("\0"), st.just("\xff\xfe"))))
def test_string_array_is_a_sequence(strings):
    raw = [s.encode() for s in strings]
    data = np.frombuffer(b"".join(struct.pack("<Q", len(s)) + s for s in raw) or b"", np.uint8)
    positions = np.cumsum([0] + [8 + len(s) for s in raw])
    array = StringArray(data, positions, "key")
    assert len(array) == len(strings)
    assert list(array) == array.tolist() == array[:] == strings
    assert [array[i] for i in range(len(array))] == strings
    assert [array.raw(i) for i in range(len(array))] == raw


@pytest.mark.parametrize("bad", [b"\xff", b"\xfe\xff", b"\xed\xa0\x80", b"\xc3", b"\x80a"])
def test_text_that_is_not_utf8(save, bad):
    meta = open_gguf(save(build({"tokens": ("string", Array("string", ("a", bad, "c")))}))).metadata
    assert (meta["tokens"][0], meta["tokens"][-1]) == ("a", "c")
    assert meta["tokens"].raw(1) == bad
    for read in (lambda t: t[1], lambda t: t.tolist()):
        with pytest.raises(LoadError, match="m.gguf: metadata key 'tokens': string 1 is not valid UTF-8"):
            read(meta["tokens"])
    with pytest.raises(LoadError, match=r"m.gguf: metadata key 'a' is not valid UTF-8"):
        open_gguf(save(build({"a": ("string", bad)})))
    with pytest.raises(LoadError, match=r"m.gguf: metadata key 0 is not valid UTF-8"):
        open_gguf(save(build({bad: ("u8", 1)})))
