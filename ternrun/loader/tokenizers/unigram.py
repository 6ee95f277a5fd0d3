"""Unigram vocabularies (`tokenizer.ggml.model = t5`): the likeliest segmentation, found by the tokenizers package."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.tokenizers.token_bytes import BYTE, CONTROL, SPACE, UNKNOWN, USER_DEFINED
from ternrun.loader.tokenizers.vocabulary import Vocabulary, flag

_CHARSMAP = "tokenizer.ggml.precompiled_charsmap"


def unigram(vocabulary: Vocabulary, metadata: Mapping[str, Any]) -> Callable[[str], list[int]]:
    """Return the encoder of text without special tokens, spaces before it included. Raises LoadError."""
    encode, normalize = unigram_pieces(vocabulary), normalization(metadata)
    prefix = flag(metadata, "add_space_prefix", False) and not flag(metadata, "remove_extra_whitespaces", False)

    def normalized(text: str) -> list[int]:
        text = normalize(text)
        return encode(f" {text}" if prefix and text.strip(" ") else text)

    return normalized


def unigram_pieces(vocabulary: Vocabulary) -> Callable[[str], list[int]]:
    """Return the encoder of normalized text. Raises LoadError."""
    from tokenizers import Tokenizer, models

    if vocabulary.unknown is None:
        raise LoadError("metadata key tokenizer.ggml.unknown_token_id is missing")
    has_bytes = bool(vocabulary.of_type(BYTE))
    library = Tokenizer(models.Unigram(_scored(vocabulary), vocabulary.unknown, has_bytes))

    def encode(text: str) -> list[int]:
        ids: list[int] = library.encode(text.replace(" ", SPACE), add_special_tokens=False).ids
        return ids

    return encode


def normalization(metadata: Mapping[str, Any]) -> Callable[[str], str]:
    """Return SentencePiece's normalizer: its table of rules, then one space before each word if spaces are merged.

    Raises LoadError.
    """
    from tokenizers import normalizers

    charsmap, merge_spaces = _charsmap(metadata), flag(metadata, "remove_extra_whitespaces", False)
    by_table = normalizers.Precompiled(charsmap).normalize_str if charsmap else str

    def normalize(text: str) -> str:
        text = by_table(text)
        return "".join(f" {word}" for word in text.split(" ") if word) if merge_spaces else text

    return normalize


def _scored(vocabulary: Vocabulary) -> list[tuple[str, float]]:
    """Tokens with scores; those that text must not become under names that no text has."""
    scores = np.where(vocabulary.types == USER_DEFINED, 0, vocabulary.scores).tolist()
    names = [token or f"\ufdd0{i}" for i, token in enumerate(vocabulary.tokens)]
    for i in vocabulary.of_type(CONTROL, UNKNOWN):
        names[i] = f"\ufdd0{i}"
    return list(zip(names, scores, strict=True))


def _charsmap(metadata: Mapping[str, Any]) -> bytes:
    """SentencePiece's compiled normalization rules: u32 size, a double-array trie of that size, texts ended by NUL.

    Checked here, since the library follows whatever indices it finds (darts-clone's layout of a u32 unit: label in
    bits 0-7 and 31, has-leaf in bit 8, offset in bits 10-30, shifted by 8 if bit 9 is set).
    """
    value = np.asarray(metadata.get(_CHARSMAP, np.zeros(0, np.uint8)))
    if value.ndim != 1 or value.dtype not in (np.uint8, np.int8):
        raise LoadError(f"metadata key {_CHARSMAP} must be a list of bytes")
    raw = value.tobytes()
    if raw and not _charsmap_is_sound(raw):
        raise LoadError(f"metadata key {_CHARSMAP} is damaged")
    return raw


def charsmaps(description: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield every table of normalization rules in the contents of a tokenizer.json, checked. Raises LoadError."""
    normalizer = description.get("normalizer")
    steps = normalizer.get("normalizers") if isinstance(normalizer, dict) else None
    for step in (normalizer, *(steps if isinstance(steps, list) else ())):
        table = step.get("precompiled_charsmap") if isinstance(step, dict) else None
        if not table:
            continue
        try:
            raw = b64decode(table, validate=True)
        except (TypeError, ValueError):
            raw = b""
        if not _charsmap_is_sound(raw):
            raise LoadError("tokenizer.json: precompiled_charsmap is damaged")
        yield raw


def _charsmap_is_sound(raw: bytes) -> bool:
    size = int.from_bytes(raw[:4], "little")
    if size % 4 or not size or 4 + size >= len(raw):
        return False
    units = np.frombuffer(raw, "<u4", size // 4, 4).astype(np.int64)
    texts = np.frombuffer(raw, np.uint8, offset=4 + size)
    try:
        texts.tobytes().decode()
    except UnicodeDecodeError:
        return False
    return _indices_are_sound(units, texts)


def _indices_are_sound(units: NDArray[np.int64], texts: NDArray[np.uint8]) -> bool:
    node = units >> 31 == 0
    node[0] = True  # the root is followed whatever it says
    base = np.flatnonzero(node) ^ ((units[node] >> 10 & 0x1FFFFF) << (units[node] >> 6 & 8))
    if (base | 255).max() >= units.size:
        return False
    leaf = units[base[units[node] >> 8 & 1 == 1]] & 0x7FFFFFFF
    return bool((leaf < texts.size).all() and (texts[leaf] & 0xC0 != 0x80).all() and texts[-1] == 0)
