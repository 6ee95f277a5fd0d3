"""Every fault of a GGUF file is one sentence that names the file, the key or tensor, and the fault."""

from __future__ import annotations

import struct

import pytest

from ternrun.errors import LoadError
from ternrun.loader.gguf.file import open_gguf
from tests.fuzz.build import Array, Bytes, Tensor, f32, noise
from tests.fuzz.build import gguf as build


def lie(at: int, form: str, value: int, content: Bytes) -> bytes:
    raw = bytearray(content.data)
    struct.pack_into(f"<{form}", raw, at, value)
    return bytes(raw)


VOCABULARY = {"tokens": ("string", Array("string", ("ab", "c", "d" * 300)))}
ALIGN = "metadata key 'general.alignment' must be a power of two up to 1048576, not"
BAD_FILES = {
    "version 1": (build({}, version=1), "header is of GGUF version 1, which is no longer in use"),
    "version 9": (build({}, version=9), "header is of GGUF version 9; versions 2 and 3 are read"),
    "version 0": (build({}, version=0), "header is of GGUF version 0"),
    "big-endian": (build({}, version=3 << 24), "header is big-endian"),
    "only magic": (b"GGUF", "header needs 4 bytes where 0 are left"),
    "half a header": (b"GGUF" + struct.pack("<IQ", 3, 0), "header needs 8 bytes where 0 are left"),
    "tensor count": (build({}, n_tensors=2**63), "header announces 9223372036854775808 tensors, more than the file"),
    "key count": (build({}, n_keys=2**64 - 1), "header announces 18446744073709551615 metadata keys, more than"),
    "one key too many": (build({"a": ("string", "x" * 99)}, n_keys=2), "metadata key 1 needs 8 bytes where 0 are left"),
    "one tensor too many": (build({}, [f32()], n_tensors=2), r"tensor 1 announces \d+ bytes of text, more"),
    "empty key": (build({"": ("u8", 1)}), "metadata key 0 has a bad name"),
    "NUL in a key": (build({"a\0b": ("u8", 1)}), "metadata key 0 has a bad name"),
    "long key": (build({"k" * 70000: ("u8", 1)}), "metadata key 0 has a bad name"),
    "duplicate key": (build([("a", ("u8", 1)), ("a", ("u8", 1))]), "metadata key 'a' occurs twice"),
    "value type": (build({"a": (13, 1)}), "metadata key 'a' has the unknown value type 13"),
    "element type": (build({"a": ("u8", Array(77, (1,)))}), "metadata key 'a' has the unknown value type 77"),
    "bool": (build({"a": ("u8", Array(7, (0x0201,), 4))}), "metadata key 'a' is a boolean that is neither 0 nor 1"),
    "nested": (build({"a": ("u8", Array(9, (9, 9)))}), "metadata key 'a' is an array of arrays"),
    "string length": (lie(37, "Q", 2**63, build({"a": ("string", "x")})), "metadata key 'a' announces 92233"),
    "string array": (build({"a": ("string", Array("string", ("x",), 2**63))}), "metadata key 'a' announces 92233"),
    "one string more": (build({"a": ("string", Array("string", ("x" * 9,), 2))}), "metadata key 'a' announces 2 str"),
    "number array": (build({"a": ("u8", Array("u64", (1,), 2**61))}), "metadata key 'a' needs 18446744073709551616"),
    "alignment 0": (build({"general.alignment": ("u32", 0)}), f"{ALIGN} 0"),
    "alignment 48": (build({"general.alignment": ("u32", 48)}), f"{ALIGN} 48"),
    "alignment 2**21": (build({"general.alignment": ("u32", 2**21)}), f"{ALIGN} 2097152"),
    "alignment text": (build({"general.alignment": ("string", "32")}), f"{ALIGN} '32'"),
    "alignment true": (build({"general.alignment": ("bool", True)}), f"{ALIGN} True"),
    "no dims": (build({}, [Tensor("t", (), 0, b"")]), "tensor 't' has 0 dimensions; 1 to 4 are possible"),
    "5 dims": (build({}, [Tensor("t", (1,) * 5, 0, noise(4))]), "tensor 't' has 5 dimensions"),
    "dims lie": (build({}, [Tensor("t", (8,), 0, noise(32), n_dims=2**31)]), "tensor 't' has 2147483648 dimensions"),
    "zero dim": (build({}, [Tensor("t", (4, 0), 0, noise(32))]), r"tensor 't' has the impossible shape \[4, 0\]"),
    "huge": (build({}, [Tensor("t", (2**32, 2**32), 0, noise(32))]), r"tensor 't' has the impossible shape"),
    "wraps": (build({}, [Tensor("t", (2**62, 4), 0, noise(32))]), r"tensor 't' has the impossible shape"),
    "duplicate tensor": (build({}, [f32(), f32()]), "tensor 'a' occurs twice"),
    "tensor name": (build({}, [f32(""), f32()]), "tensor 0 has a bad name"),
    "unaligned": (build({}, [f32(), f32("b", offset=100)]), "tensor 'b' starts at offset 100, not a multiple of 32"),
    "same place": (build({}, [f32(), f32("b", offset=0)]), "tensor 'a' starts at offset 0, where another tensor"),
    "overlap": (build({}, [f32(), f32("b", offset=96)]), r"tensor 'a' .* takes 128 bytes, but has 96 before the next"),
    "gap": (build({}, [f32(), f32("b", offset=192), f32("c")]), r"tensor 'a' .* takes 128 bytes, but has 192"),
    "far away": (build({}, [f32(offset=2**63)]), "tensor 'a' ends 9223372036854775808 bytes after the end of the file"),
    "blocks": (build({}, [Tensor("t", (48,), 8, noise(51))]), r"tensor 't' of shape \[48\] does not divide into"),
    "span": (build({}, [Tensor("t", (512,), 34, noise(132)), f32()]), r"tensor 't' .* takes 108 bytes, but has 160"),
    "rows of 3": (build({}, [Tensor("t", (64, 3), 335, noise(60))]), r"tensor 't' of shape \[3, 64\] does not divide"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_faults_are_named(save, case):
    content, fault = BAD_FILES[case]
    path = save(content)
    with pytest.raises(LoadError, match=f"^{path}: {fault}") as caught:
        open_gguf(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
