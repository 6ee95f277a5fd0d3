"""Small valid files of every kind, to be damaged."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ternrun.bench.vocabulary import byte_vocabulary
from ternrun.loader.gguf.file import write_gguf
from ternrun.loader.gguf.types import TYPE_IDS
from ternrun.loader.quants.table import encode
from ternrun.runtime.encodings import ENCODINGS, nbytes
from tests.fakes import fake_gguf, fake_weights
from tests.fuzz.build import KINDS, Array, Bytes, Tensor, f32, gguf, noise

_VALUES = {kind: (kind, "text" if kind == "string" else 1) for kind in KINDS}
_ARRAYS = {f"{k}s": (k, Array(k, ("a", "bc", "") if k == "string" else (1, 0, 1))) for k in KINDS}
_VOCABULARY = {
    "tokenizer.ggml.tokens": ("string", Array("string", tuple(f"token{i}" for i in range(300)))),
    "tokenizer.ggml.scores": ("f32", Array("f32", tuple(float(i) for i in range(300)))),
    "tokenizer.ggml.token_type": ("i32", Array("i32", (1,) * 300)),
    "tokenizer.ggml.bos_token_id": ("u32", 1),
}


def _tensor(name: str, *shape: int) -> Tensor:
    size = nbytes(name, shape)
    assert size is not None
    data = b"\x55" * size  # never the code 3
    if ENCODINGS[name].chunk:
        data = encode(name, np.ones(shape, np.float32)).tobytes()
    return Tensor(f"blk.0.{name}.weight", shape[::-1], TYPE_IDS[name], data)


def gguf_files() -> dict[str, Bytes]:
    """GGUF files by name, a few KB each, with the places of all numbers in them."""
    two = [f32("a"), f32("b", 40)]
    squares = [Tensor(f"t{d}", (32,) * d, 0, noise(4 * 32**d)) for d in (1, 2)]
    return {
        "empty": gguf({}),
        "values": gguf({**_VALUES, **_ARRAYS}),
        "version2": gguf({**_VALUES, "general.alignment": ("u32", 64)}, two, version=2, alignment=64),
        "vocabulary": gguf(_VOCABULARY, [f32("token_embd.weight", 64)]),
        "types": gguf({}, [_tensor(n, 4, 256) for n in ENCODINGS if n in TYPE_IDS]),
        "refused": gguf({}, [Tensor(f"t{i}", (256, 2), i, noise(512)) for i in (37, 38, 43, 999)]),
        "matrices": gguf({"llama.block_count": ("u32", 1)}, squares),
        "seed": gguf({"nanochat.dim": ("u32", 128)}, [Tensor("w", (4, 128), 100, noise(144))], magic=b"GUGF"),
    }


def _written(write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.gguf"
        write(path)
        return path.read_bytes()


def _models() -> list[bytes]:
    shape = {"dim": 128, "n_heads": 2, "n_kv_heads": 1, "ffn_dim": 128, "n_layers": 1, "vocab_size": 260}
    weights = [fake_weights(arch, "I2_S", **shape) for arch in ("llama", "gemma3", "bitnet-b1.58")]
    return [_written(lambda path, w=w: fake_gguf(path, w)) for w in weights]  # type: ignore[misc]


def _vocabularies() -> list[bytes]:
    bytes_first = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    words = ["▁", "l", "o", "lo", "▁lo", "e", "H", "he", "▁H", "w", "ö", "r", "d"]
    shared = {
        "tokenizer.ggml.tokens": bytes_first + words,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(words),
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(words))],
    }
    merges = {"tokenizer.ggml.merges": ["l o", "h e", "he l"]}
    found: list[dict[str, Any]] = [byte_vocabulary(258), byte_vocabulary(258) | merges]
    found += [shared | {"tokenizer.ggml.model": kind} for kind in ("llama", "t5")]
    return [_written(lambda path, v=v: write_gguf(path, v, [])) for v in found]  # type: ignore[misc]


_TEMPLATES = [
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] | trim }}{% endfor %}",
    "{{ bos_token }}{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% if m.role == 'user' and loop.first %}{{ raise_exception('x' * 3) }}{% elif m.tool_calls %}"
    "{{ m.tool_calls | tojson(indent=2) }}{% else %}{{ m.content.split('e')[-1] ~ ns.n }}{% endif %}{% endfor %}",
    "{% macro f(a, b=2) %}{{ a * b }}{% endmacro %}{{ f(3) }}{{ range(5) | join(',') | upper | replace('1', '2') }}"
    "{{ '%s' | format(1) }}{{ {'a': [1, 2]} | dictsort }}{{ messages | map(attribute='role') | list }}",
]


def _safetensors() -> list[bytes]:
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "U8", "shape": [8], "data_offsets": [24, 32]},
    }
    files = []
    for entries in (header, {}):
        text = json.dumps(entries).encode()
        files.append(struct.pack("<Q", len(text)) + text + bytes(32 if entries else 0))
    return files


# by name of the fuzz target
CORPORA: dict[str, Callable[[], list[bytes]]] = {
    "gguf": lambda: [bytes(s.data) for s in gguf_files().values()],
    "model": _models,
    "tokenizer": _vocabularies,
    "template": lambda: [t.encode() for t in _TEMPLATES],
    "safetensors": _safetensors,
}
