"""Unigram vocabularies: the likeliest segmentation, spaces, byte fallback, and hostile normalization tables."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from ternrun.errors import LoadError
from ternrun.loader.tokenizers.token_bytes import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED
from ternrun.loader.tokenizers.tokenizer import Tokenizer

WORDS = {"▁": -4.0, "a": -3.0, "b": -3.5, "▁a": -2.0, "ab": -1.5, "abab": -2.5, "▁b": -9.0}
KEY = "tokenizer.ggml.precompiled_charsmap"


def vocabulary(*, with_bytes: bool = False, **keys: Any) -> dict[str, Any]:
    spare = [f"<0x{b:02X}>" for b in range(256)] if with_bytes else []
    tokens = ["<pad>", "</s>", "<unk>", *WORDS, "<user>", *spare]
    types = [CONTROL, CONTROL, UNKNOWN] + [NORMAL] * len(WORDS) + [USER_DEFINED] + [BYTE] * len(spare)
    scores = [0.0, 0.0, 0.0, *WORDS.values(), -50.0] + [-20.0] * len(spare)
    given = {"model": "t5", "tokens": tokens, "token_type": types, "scores": scores} | keys
    return {f"tokenizer.ggml.{k}": v for k, v in given.items()}


def charsmap(texts: bytes = b"a\0", value: int = 0, offset: int = 256, units: int = 512) -> bytes:
    """A table with one rule: A becomes the text at `value`."""
    table = np.zeros(units, "<u4")
    table[0] = offset << 10
    table[256 ^ ord("A")] = 1 << 10 | 1 << 8 | ord("A")  # its leaf is the unit beside it
    table[256 ^ ord("A") ^ 1] = 1 << 31 | value
    return (4 * units).to_bytes(4, "little") + table.tobytes() + texts


def best(text: str) -> float:
    """Score of the likeliest segmentation, by trying all."""
    if not text:
        return 0.0
    return max((s + best(text[len(w) :]) for w, s in WORDS.items() if text.startswith(w)), default=-1e9)


def test_finds_the_likeliest_segmentation() -> None:
    tokenizer = Tokenizer.from_gguf(vocabulary(add_space_prefix=True))
    rng = random.Random(3)
    for _ in range(100):
        text = "".join(rng.choice("ab ") for _ in range(10)).strip() or "a"
        ids = tokenizer.encode(text, eos=True)
        assert ids[-1] == 1  # </s>
        score = sum(WORDS[piece.replace(" ", "▁")] for piece in tokenizer.pieces(ids[:-1]))
        assert score == pytest.approx(best("▁" + text.replace(" ", "▁")))
        assert tokenizer.decode(ids) == text


def test_spaces_and_special_tokens() -> None:
    tokenizer = Tokenizer.from_gguf(vocabulary(add_space_prefix=True, remove_extra_whitespaces=True))
    assert tokenizer.decode(tokenizer.encode("  a   b ")) == "a b"
    assert tokenizer.encode("", bos=False) == []
    assert 1 in tokenizer.encode("a</s>", bos=False)
    assert 1 not in tokenizer.encode("a</s>", bos=False, special=False)
    assert 10 in tokenizer.encode("a<user>", bos=False, special=False)


def test_bytes_or_unknown() -> None:
    assert Tokenizer.from_gguf(vocabulary()).encode("aéé", bos=False)[-1] == 2
    tokenizer = Tokenizer.from_gguf(vocabulary(with_bytes=True))
    assert tokenizer.decode(tokenizer.encode("aé")) == "aé"


def test_normalization_table() -> None:
    tokenizer = Tokenizer.from_gguf(vocabulary() | {KEY: np.frombuffer(charsmap(), np.uint8)})
    assert tokenizer.decode(tokenizer.encode("Aba")) == "aba"


@pytest.mark.parametrize(
    "table",
    [
        b"\x01", b"\xff\xff\xff\xff", charsmap()[:-3], charsmap(value=2), charsmap(offset=1 << 18), charsmap(b"\xff\0"),
        charsmap("é\0".encode(), value=1), charsmap(b"a"), b"\x08\0\0\0" + bytes(5), np.zeros((2, 2), np.uint8),
        np.zeros(9, np.float32), "text",
    ],
)  # fmt: skip
def test_hostile_tables_are_refused(table: Any) -> None:
    value = np.frombuffer(table, np.uint8) if isinstance(table, bytes) else table
    with pytest.raises(LoadError, match="precompiled_charsmap"):
        Tokenizer.from_gguf(vocabulary() | {KEY: value})


def test_mutated_tables_do_no_harm() -> None:
    rng, whole = random.Random(5), charsmap(b"a\0bcd\0\xc3\xa9\0")
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 20)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            tokenizer = Tokenizer.from_gguf(vocabulary() | {KEY: np.frombuffer(bytes(damaged), np.uint8)})
        except LoadError:
            continue
        tokenizer.encode("".join(chr(rng.randrange(1, 0x3000)) for _ in range(200)))


def test_missing_unknown_token() -> None:
    metadata = vocabulary(tokens=["a"], token_type=[1], scores=[0.0])
    with pytest.raises(LoadError, match="unknown_token_id is missing"):
        Tokenizer.from_gguf(metadata)
