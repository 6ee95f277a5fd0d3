"""What each token adds to the text, in bytes: GPT-2's printable alphabet, SentencePiece's spaces, byte tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # token types, as GGUF numbers them
SPACE = "▁"  # SentencePiece's visible space, U+2581
_BYTE_NAME = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _alphabet() -> dict[int, str]:
    """GPT-2's printable character for each byte: itself where Latin-1 prints it, else U+0100 and up in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(0x100 + n) for n, b in enumerate(others)}


ALPHABET = _alphabet()
_BYTES = {ord(character): byte for byte, character in ALPHABET.items()}


def token_bytes(tokens: Sequence[str], types: NDArray[np.int8], *, byte_level: bool) -> Callable[[int], bytes]:
    """Function from an id to its bytes; control tokens and words added by hand stand for their own name."""
    kinds, plain = types.tobytes(), _from_alphabet if byte_level else _from_sentencepiece

    @cache
    def bytes_of(i: int) -> bytes:
        if kinds[i] in (CONTROL, UNKNOWN, USER_DEFINED):
            return tokens[i].encode()
        return bytes([byte_value(tokens[i])]) if kinds[i] == BYTE else plain(tokens[i])

    return bytes_of


def byte_value(name: str) -> int:
    """The byte that a token called `<0xAB>` stands for. Raises LoadError for any other name."""
    match = _BYTE_NAME.fullmatch(name)
    if match is None:
        raise LoadError(f"a token of type byte must be called <0x00> to <0xFF>, not {name[:40]!r}")
    return int(match[1], 16)


def _from_sentencepiece(text: str) -> bytes:
    return text.replace(SPACE, " ").encode()


def _from_alphabet(text: str) -> bytes:
    try:
        return text.translate(_BYTES).encode("latin-1")
    except UnicodeEncodeError:  # not in the alphabet: a word added to the vocabulary as it is
        return text.encode()
