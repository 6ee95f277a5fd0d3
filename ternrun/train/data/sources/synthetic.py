"""Synthetic corpora with a known lowest possible loss, to tell a broken trainer from a hard corpus."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

from ternrun.errors import UsageError
from ternrun.train.data.document import Document

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-"
_LENGTH = 4000  # characters per document

_KINDS: dict[str, tuple[Callable[[random.Random], str], float]] = {
    "repeated": (lambda r: ALPHABET[r.randrange(64)] * _LENGTH, 0.0),
    "sequential": (lambda r: (ALPHABET * (_LENGTH // 64 + 2))[(k := r.randrange(64)) : k + _LENGTH], 0.0),
    "random": (lambda r: "".join(r.choices(ALPHABET, k=_LENGTH)), math.log(64)),
}
_PATTERNS = (
    "def {a}_{b}({c}):\n    return {c} {op} {n}\n",
    "for {c} in range({n}):\n    print({c} {op} {n})\n",
    "class {A}:\n    def __init__(self, {c}):\n        self.{c} = {c}\n",
    "if {c} > {n}:\n    {c} = {c} {op} {n}\nelse:\n    {c} = {n}\n",
)


def synthetic(kind: str, documents: int, seed: int = 0) -> tuple[Iterator[Document], float]:
    """Documents over an alphabet of 64 characters, and the lowest loss (nats per character) that a model can reach.

    `code` is simple Python snippets with an unknown lowest loss (nan). Raises UsageError for an unknown kind.
    """
    if kind != "code" and kind not in _KINDS:
        raise UsageError(f"synthetic data is {', '.join(_KINDS)} or code, not {kind!r}")
    make, floor = _KINDS.get(kind, (_code, math.nan))
    rng = random.Random(seed)
    made = (Document(f"{kind}-{i}", kind, "none", make(rng)) for i in range(documents))
    return made, floor


def _code(rng: random.Random) -> str:
    words = ("item", "value", "count", "total", "name", "index", "result", "node")
    parts = []
    for _ in range(30):
        a, b, c = rng.sample(words, 3)
        parts.append(
            rng.choice(_PATTERNS).format(a=a, b=b, c=c, A=a.title(), op=rng.choice("+-*"), n=rng.randrange(100))
        )
    return "\n".join(parts)
