"""A decoder graph with a cache, run operator by operator: tokens and past in, logits and present out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ternrun.errors import LoadError, UsageError
from ternrun.onnx.format.graph import OnnxModel, Value
from ternrun.onnx.format.half_precision import in_float32
from ternrun.onnx.format.tensors import CODES, DTYPES
from ternrun.onnx.runtime.session import Session
from ternrun.runtime.config import ModelConfig, RopeConfig

DEFAULT_CONTEXT = 2048  # tokens, for a model without a stated limit
Array = np.ndarray[Any, Any]
KNOWN = ("input_ids", "attention_mask", "position_ids", "use_cache_branch", "cache_position")
_NUMBERED = re.compile(r"(?:past|present)\D*(\d+)(.*)")


@dataclass(frozen=True, slots=True)
class Pair:
    """A past input and the present output that continues it, (B, heads, tokens, width)."""

    past: str
    present: str
    heads: int
    width: int
    dtype: np.dtype[Any]


class GraphDecoder:
    """A checked decoder graph: token ids and caches in, logits and longer caches out."""

    def __init__(self, model: OnnxModel, *, context: int = 0, width: int = 0) -> None:
        """`context`: the model's context length in tokens. `width`: elements of a head, for a graph that does not
        state them.

        Raises LoadError for a graph that is not a decoder of token ids with a cache.
        """
        self._session = Session(in_float32(model))
        self._inputs = {v.name: v for v in self._session.inputs}
        self.pairs = cache_pairs(self._session, width)
        others = set(self._inputs) - {p.past for p in self.pairs} - set(KNOWN)
        if "input_ids" not in self._inputs or others:
            raise LoadError(f"the graph takes {', '.join(sorted(others)) or 'no input_ids'}: it is not a known decoder")
        if "logits" not in {v.name for v in self._session.outputs}:
            raise LoadError("the graph returns no logits: it is not a decoder")
        vocab_size, self._first, self._later = self._try()
        first = self.pairs[0]
        self.config = ModelConfig(
            architecture="onnx", vocab_size=vocab_size, context_length=context or DEFAULT_CONTEXT,
            dim=first.heads * first.width, n_layers=-(-len(self.pairs) // 2), n_heads=first.heads,
            n_kv_heads=first.heads, head_dim=first.width, ffn_dim=1, norm_eps=0.0, rope=RopeConfig(dim=0),
        )  # fmt: skip

    def empty(self) -> list[Array]:
        """The caches of no tokens."""
        return [np.zeros((1, p.heads, 0, p.width), p.dtype) for p in self.pairs]

    def run(self, tokens: Array, start: int, caches: Sequence[Array]) -> tuple[Array, list[Array]]:
        """Logits (T, vocab_size) and caches of start + T tokens."""
        n, reach = len(tokens), start + len(tokens)
        places = np.arange(start, reach)
        feeds: dict[str, Array] = dict(
            zip(KNOWN, (tokens[None], np.ones((1, reach)), places[None], np.ones(1, bool), places), strict=True)
        )
        fed = {name: feeds[name].astype(_dtype(v)) for name, v in self._inputs.items() if name in feeds}
        fed |= {p.past: c for p, c in zip(self.pairs, caches, strict=True)}
        out = self._session.run(fed)
        logits = np.asarray(out["logits"], np.float32)
        presents = [out[p.present] for p in self.pairs]
        if logits.ndim != 3 or logits.shape[:2] != (1, n):
            raise LoadError(f"the graph gave logits of shape {list(logits.shape)} for {n} tokens")
        for p, present in zip(self.pairs, presents, strict=True):
            if present.shape != (1, p.heads, reach, p.width):
                raise LoadError(f"the graph gave {p.present!r} of shape {list(present.shape)} after {reach} tokens")
        return logits[0], presents

    def portions(self, tokens: Array, start: int) -> list[Array]:
        """The tokens from position `start` on in the portions that the graph supports: all together, or one by one."""
        together = self._later if start else self._first
        return [tokens] if together else np.split(tokens, len(tokens))

    def _try(self) -> tuple[int, bool, bool]:
        """The vocabulary size, and whether several tokens can be run together: at the start, and after others.

        Some graphs support that only at the start. A combined run must equal separate runs.
        """
        ids = np.arange(3)
        logits, caches = self.run(ids[:1], 0, self.empty())
        ids %= max(logits.shape[1], 1)
        second, after = self.run(ids[1:2], 1, caches)
        third, _ = self.run(ids[2:], 2, after)
        first = self._gives(np.concatenate((logits, second)), ids[:2], 0, self.empty())
        return logits.shape[1], first, self._gives(np.concatenate((second, third)), ids[1:], 1, caches)

    def _gives(self, expected: Array, tokens: Array, start: int, caches: Sequence[Array]) -> bool:
        """Whether a run gives the expected logits."""
        try:
            logits, _ = self.run(tokens, start, caches)
        except (LoadError, UsageError):
            return False
        return np.allclose(logits, expected, rtol=0.02, atol=0.02 * np.abs(expected).max())


def cache_pairs(session: Session, width: int) -> list[Pair]:
    """The graph's caches in its own order. Raises LoadError if past and present do not belong together."""
    presents = {_key(v.name): v.name for v in session.outputs if "present" in v.name}
    pairs = []
    for value in session.inputs:
        key = _key(value.name)
        if not value.name.startswith("past") or key is None:
            continue
        if key not in presents:
            raise LoadError(f"the graph takes {value.name[:60]!r}, but returns nothing that continues it")
        shape = value.shape or ()
        heads, stated = (shape[1], shape[3]) if len(shape) == 4 else (None, None)
        size = stated if isinstance(stated, int) else width
        if not isinstance(heads, int) or heads < 1 or not size or isinstance(shape[2], int):
            raise LoadError(f"the cache {value.name[:60]!r} has the shape {str(shape)[:80]}, which is not supported")
        pairs.append(Pair(value.name, presents[key], heads, size, _dtype(value)))
    if not pairs:
        raise LoadError("the graph has no past and present: a decoder without a cache is not supported")
    return pairs


def _key(name: str) -> tuple[int, str] | None:
    """(layer, key or value) of a name: past_key_values.0.key and present.0.key, past_0 and present_0."""
    match = _NUMBERED.fullmatch(name)
    return None if match is None else (int(match[1]), match[2].removeprefix(".decoder"))


def _dtype(value: Value) -> np.dtype[Any]:
    """numpy's type of an input; bfloat16 comes from the onnx package."""
    kind = DTYPES[CODES[value.dtype]].numpy if value.dtype else "<i8"
    if kind is None:
        from onnx import helper

        kind = helper.tensor_dtype_to_np_dtype(CODES[value.dtype])
    found: np.dtype[Any] = np.dtype(kind)
    return found
