"""The tokens that DRY's sequence breakers stand in, whole or in part (as llama.cpp finds them)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ternrun.loader.tokenizers.tokenizer import Tokenizer
from ternrun.runtime.sampling.penalties import END, MAX_TAIL, Breakers

MAX_BYTES = 40  # of a text that count, as in llama.cpp
KEPT = 16  # sets of texts whose tokens are remembered


class _Spelling(NamedTuple):
    """All tokens of a vocabulary, one behind the other."""

    data: NDArray[np.uint8]  # (bytes,)
    owner: NDArray[np.int32]  # (bytes,) the token of each byte
    ends: NDArray[np.int64]  # (vocab_size,) where each token ends


class SequenceBreakers:
    """Of one tokenizer. Calls may come from any thread."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known = lru_cache(KEPT)(self._find)

    def __call__(self, texts: tuple[str, ...]) -> Breakers:
        """The tokens that hold one of the texts, and those that begin one, with what may follow them."""
        return self._known(texts)

    def _find(self, texts: tuple[str, ...]) -> Breakers:
        single = np.zeros(self._tokenizer.vocab_size, np.bool_)
        begun: dict[tuple[int, ...], list[NDArray[np.int32]]] = {}  # what may follow -> what it may follow
        for text in texts:
            data = text.encode("utf-8", "replace")[:MAX_BYTES].decode("utf-8", "ignore").encode()
            whole, parts = self._occurrences(data)
            single[whole] = True
            for length, tokens in parts.items():
                if tail := self._tail(data, length):
                    begun.setdefault(tuple(tail), []).append(tokens)
        return Breakers(single, *_tree(begun))

    def _tail(self, data: bytes, length: int) -> list[int]:
        """The tokens of what follows the first `length` bytes; where these end inside a character, as they stand in the
        tokens of the whole, or none."""
        try:
            return self._encode(data[length:])[:MAX_TAIL]
        except UnicodeDecodeError:
            ids = self._encode(data)
        ends = np.cumsum([len(self._tokenizer.token_bytes(i)) for i in ids])
        return ids[1 + int(np.searchsorted(ends, length)) :][:MAX_TAIL] if length in ends else []

    def _encode(self, data: bytes) -> list[int]:
        return self._tokenizer.encode(data.decode(), special=False, bos=False)

    def _occurrences(self, data: bytes) -> tuple[NDArray[np.int32], dict[int, NDArray[np.int32]]]:
        """Tokens that hold `data`; and by the length of what they end with of its beginning, those that begin it."""
        spelling = self._spelling
        at = np.flatnonzero(spelling.data == data[0])  # where `data` may begin
        begun = {}
        for length in range(1, len(data)):
            cut = at + length == spelling.ends[spelling.owner[at]]
            if cut.any():
                begun[length] = np.unique(spelling.owner[at[cut]])
            at = at[~cut]
            at = at[spelling.data[at + length] == data[length]]
        return np.unique(spelling.owner[at]), begun

    @cached_property
    def _spelling(self) -> _Spelling:
        size = self._tokenizer.vocab_size
        words = [self._tokenizer.token_bytes(i) for i in range(size)]
        lengths = np.array([len(word) for word in words], np.int64)
        data = np.frombuffer(b"".join(words), np.uint8)
        return _Spelling(data, np.repeat(np.arange(size, dtype=np.int32), lengths), np.cumsum(lengths))


def _tree(begun: Mapping[tuple[int, ...], Sequence[NDArray[np.int32]]]) -> tuple[dict[int, int], dict[int, Any]]:
    """`heads` and `tails` of `Breakers`."""
    heads, tails = dict[int, int](), dict[int, Any]()
    for index, (tail, groups) in enumerate(begun.items()):
        bit, node = 1 << index, tails
        for token in tail:
            node = node.setdefault(token, {})
        node[END] = bit
        for token in np.unique(np.concatenate(groups)).tolist():
            heads[token] = heads.get(token, 0) | bit
    return heads, tails
