"""Removal of exact and near duplicates: sha256 of the text, and MinHash over its lines (Broder 1997) with banding.

Two documents are near duplicates if the estimated Jaccard similarity of their sets of lines is at least `THRESHOLD`.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ternrun.train.data.document import Document

PERMUTATIONS, BANDS, THRESHOLD = 32, 8, 0.7
_SHORT_LINE = 8  # lines up to this length, such as `else:`, are in every file and no sign of a copy


def digest(text: str) -> bytes:
    """sha256 of the text without surrounding white space."""
    return hashlib.sha256(text.strip().encode("utf-8", "surrogatepass")).digest()


def remove_duplicates(documents: Iterable[Document]) -> Iterator[Document]:
    """The documents that are no exact or near duplicate of an earlier one, in order."""
    seen: set[bytes] = set()
    buckets: dict[bytes, list[int]] = {}
    signatures: list[NDArray[np.uint32]] = []
    for document in documents:
        key = digest(document.text)
        if key in seen:
            continue
        seen.add(key)
        signature = minhash(document.text)
        bands = [bytes([i]) + part.tobytes() for i, part in enumerate(np.split(signature, BANDS))]
        candidates = {i for band in bands for i in buckets.get(band, ())}
        if any((signatures[i] == signature).mean() >= THRESHOLD for i in candidates):
            continue
        for band in bands:
            buckets.setdefault(band, []).append(len(signatures))
        signatures.append(signature)
        yield document


def minhash(text: str) -> NDArray[np.uint32]:
    """The MinHash signature (PERMUTATIONS,) of the set of a text's lines."""
    lines = {line for raw in text.splitlines() if len(line := raw.strip()) > _SHORT_LINE} or {text}
    hashes = np.fromiter((zlib.crc32(line.encode("utf-8", "surrogatepass")) for line in lines), np.uint64, len(lines))
    rng = np.random.default_rng(20)
    factors = rng.integers(1, 2**63, PERMUTATIONS, np.uint64) | np.uint64(1)
    offsets = rng.integers(0, 2**63, PERMUTATIONS, np.uint64)
    mixed = (hashes[:, None] * factors + offsets) >> np.uint64(32)  # (lines, PERMUTATIONS)
    signature: NDArray[np.uint32] = mixed.min(0).astype(np.uint32)
    return signature
