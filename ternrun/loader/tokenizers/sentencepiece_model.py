"""Reads tokenizer.model, SentencePiece's own file: a protobuf message, of which the few fields that decide are read.

Source of the field numbers: sentencepiece_model.proto of google/sentencepiece.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ternrun.errors import LoadError
from ternrun.loader.gguf.strings import MAX_STRINGS
from ternrun.loader.tokenizers.token_bytes import BYTE, NORMAL

NAMES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_MAX_BYTES = 1 << 26  # the largest in use, of 256,000 pieces, has 4 MB
_KINDS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # wire types
_Value = int | bytes


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """`types` are numbered as in GGUF files; `bos`, `eos` and `unknown` are None where the model has no such piece."""

    kind: str
    tokens: list[str]
    scores: list[float]
    types: list[int]
    bos: int | None
    eos: int | None
    unknown: int | None
    charsmap: bytes  # compiled normalization rules
    prefix: bool  # a space is put before the text
    merge_spaces: bool  # spaces at both ends are dropped, runs of them become one


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a model. Raises LoadError for a file that is damaged or of a kind that is not supported."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise LoadError(f"{path} is larger than a SentencePiece model should be")
        data = path.read_bytes()
    except OSError as e:
        raise LoadError(f"{path} cannot be read: {e}") from e
    try:
        return _model(data)
    except (ValueError, IndexError, struct.error) as e:
        raise LoadError(f"{path} is not a SentencePiece model: {e}") from e
    except LoadError as e:
        raise LoadError(f"{path} {e}") from e


def _model(data: bytes) -> SentencePieceModel:
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, _Value] = {}
    normalizer: dict[int, _Value] = {}
    for number, value in _fields(data):
        if number == 1:
            pieces.append(_piece(_message(value)))
        elif number in (2, 3):
            (trainer if number == 2 else normalizer).update(_fields(_message(value)))
        if len(pieces) > MAX_STRINGS:
            raise ValueError(f"it has more than {MAX_STRINGS} pieces")
    if not pieces:
        raise ValueError("it has no pieces")
    tokens, scores, types = (list(column) for column in zip(*pieces, strict=True))
    kind = _KINDS.get(_number(trainer.get(3, 1)), "unknown")
    if kind not in ("unigram", "bpe"):
        raise LoadError(f"is a SentencePiece model of kind {kind}; unigram and bpe are supported")
    if trainer.get(24) or normalizer.get(5, 1) == 0:
        raise LoadError("puts spaces behind words or keeps them as they are, which is not supported")
    bos, eos, unknown = (
        _role(trainer, field, usual, len(tokens)) for field, usual in ((41, 1), (42, 2), (40, 0))
    )  # fmt: skip
    return SentencePieceModel(
        kind, tokens, scores, types, bos, eos, unknown,
        charsmap=_message(normalizer.get(2, b"")),
        prefix=bool(normalizer.get(3, 1)),
        merge_spaces=bool(normalizer.get(4, 1)),
    )  # fmt: skip


def _piece(data: bytes) -> tuple[str, float, int]:
    fields = dict(_fields(data))
    kind = _number(fields.get(3, NORMAL))
    if not NORMAL <= kind <= BYTE:
        raise ValueError(f"a piece has type {kind}")
    score = struct.unpack("<f", _message(fields.get(2, bytes(4))))[0]
    if score != score or score in (float("inf"), -float("inf")):
        raise ValueError("a score is not finite")
    return _message(fields.get(1, b"")).decode(), score, kind


def _role(trainer: dict[int, _Value], field: int, usual: int, count: int) -> int | None:
    value = _number(trainer.get(field, usual))
    value = value - (1 << 64) if value >= 1 << 63 else value
    return value if 0 <= value < count else None


def _fields(data: bytes) -> Iterator[tuple[int, _Value]]:
    """Numbers and values of a message's fields, in the order of the file; of four or eight bytes as these bytes."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        kind, size = tag & 7, 0
        if kind == _VARINT:
            number, at = _varint(data, at)
            yield tag >> 3, number
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in (_EIGHT, _FOUR):
            size = 8 if kind == _EIGHT else 4
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
        if size > end - at:
            raise ValueError(f"a field of {size} bytes at byte {at}, of which there are {end - at}")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise ValueError(f"a number of more than ten bytes at byte {at}")


def _message(value: _Value) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number stands where a message should")  # noqa: TRY004 (the file is wrong, not the program)
    return value


def _number(value: _Value) -> int:
    if not isinstance(value, int):
        raise ValueError("a message stands where a number should")  # noqa: TRY004
    return value
