"""What a fuzzer calls: each target takes any bytes and returns whether they were accepted.

A target lets only unforeseen exceptions out; a `LoadError` of one line is the right answer to damaged bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ternrun.errors import ConfigError, LoadError
from ternrun.loader.chat.template import ChatTemplate
from ternrun.loader.gguf.file import GGUFFile, StringArray, read_gguf
from ternrun.loader.hf import safetensors
from ternrun.loader.model import gguf_weights
from ternrun.loader.quants.table import decode, trits
from ternrun.loader.tokenizers.tokenizer import Tokenizer
from ternrun.runtime.encodings import ENCODINGS

FILE = "fuzz.gguf"
TEXT = "Hello <|eos|> wörld 12345\n\n\tif x:\0 ☃😀 <0x41></s>"
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]},
]


def _open(data: bytes) -> GGUFFile:
    return read_gguf([(FILE, np.frombuffer(data, np.uint8))])


def gguf(data: bytes) -> None:
    """Parse a GGUF file, decode its strings and its tensors."""
    model = _open(data)
    for value in model.metadata.values():
        if isinstance(value, StringArray):
            assert len(value.tolist()) == len(value)
    for tensor in model.tensors.values():
        checked = tensor.checked()
        assert decode(checked.type, checked.data, checked.shape).shape == checked.shape
        if ENCODINGS[checked.type].kind == "ternary":
            trits(checked.type, checked.data, checked.shape, name=checked.name)


def model(data: bytes) -> None:
    """Make a configuration and checked weights of a GGUF file."""
    gguf_weights(_open(data))


def tokenizer(data: bytes) -> None:
    """Make a tokenizer of a GGUF file's vocabulary, encode a text and decode it."""
    known = Tokenizer.from_gguf(_open(data).metadata)
    ids = known.encode(TEXT)
    assert all(0 <= i < known.vocab_size for i in ids)
    known.decode(ids)


def template(data: bytes) -> None:
    """Compile a chat template and render messages with it."""
    ChatTemplate(data.decode("utf-8", "replace"), "<s>", "</s>").render(MESSAGES)


def tensors(data: bytes) -> None:
    """Parse a safetensors file."""
    safetensors.parse(np.frombuffer(data, np.uint8), "fuzz.safetensors")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "gguf": gguf, "model": model, "tokenizer": tokenizer, "template": template, "safetensors": tensors,
}  # fmt: skip


def accepts(target: str, data: bytes) -> bool:
    """Whether the target takes the bytes; a refusal must be one short line."""
    try:
        TARGETS[target](data)
    except (LoadError, ConfigError) as e:
        text = str(e)
        assert text, "an empty message"
        assert "\n" not in text, text
        assert len(text) < 500, text
        return False
    return True
