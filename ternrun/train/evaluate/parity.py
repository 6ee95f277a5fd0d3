"""Parity of the torch model and the runtime: do both compute the same logits for an exported file?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ternrun.loader.model import open_model
from ternrun.runtime.backend.protocol import Batch, Model
from ternrun.runtime.backend.registry import select_backend
from ternrun.runtime.config import EngineConfig
from ternrun.runtime.sampling.sampler import full_logits
from ternrun.train.model.decoder import Decoder

_PREFILL_CHUNK = 128  # tokens per step of the runtime

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Parity:
    """Differences over `positions`: `median` and `largest` of the largest logit difference at each position.

    Differences are a share of the range of all logits of a window; `same_argmax` is the share of positions with the
    same most likely token.
    """

    positions: int
    same_argmax: float
    median: float
    largest: float


def check_parity(model: Decoder, path: Path, tokens: NDArray[Any], positions: int, kv_type: Any = "f32") -> Parity:
    """Compare `model` (in f32, rounded as the file) with the file at `path` over windows of the model's context."""
    with open_runtime(path, model.config.context, kv_type) as runtime:
        windows = split_windows(tokens[:positions], model.config.context)
        return compare_logits((torch_logits(model, ids), runtime_logits(runtime, ids)) for ids in windows)


def split_windows(tokens: NDArray[Any], size: int) -> Iterator[NDArray[np.int32]]:
    """All of `tokens` (n,) in windows of `size`; the last one can be shorter."""
    for start in range(0, len(tokens), size):
        yield np.asarray(tokens[start : start + size], np.int32)


def compare_logits(pairs: Iterable[tuple[Logits, Logits]]) -> Parity:
    """Compare two models' logits, each (T, V), over windows."""
    differences, same = [], []
    for ours, theirs in pairs:
        differences.append(np.abs(ours - theirs).max(-1) / np.ptp(ours))
        same.append(ours.argmax(-1) == theirs.argmax(-1))
    difference, equal = np.concatenate(differences), np.concatenate(same)
    return Parity(len(equal), float(equal.mean()), float(np.median(difference)), float(difference.max()))


@contextmanager
def open_runtime(path: Path, context: int, kv_type: Any = "f32") -> Iterator[Model]:
    """The file at `path` loaded by the runtime, for one sequence of up to `context` tokens. Raises LoadError."""
    with open_model(path) as file:
        engine = EngineConfig(context=context, max_batch=1, prefill_chunk=_PREFILL_CHUNK, kv_type=kv_type)
        runtime = select_backend("auto")[0].load(file.weights, engine)
        try:
            yield runtime
        finally:
            runtime.close()


@torch.no_grad()
def torch_logits(model: Decoder, ids: NDArray[np.int32]) -> Logits:
    """Logits (T, V) of one sequence of ids (T,)."""
    logits: Logits = model.logits(torch.from_numpy(ids.astype(np.int64))[None])[0].numpy()
    return logits


def runtime_logits(runtime: Model, ids: NDArray[np.int32]) -> Logits:
    """Logits (T, V) of one sequence of ids (T,); overwrites the runtime's cache."""
    blocks = np.arange(-(-len(ids) // runtime.block_size), dtype=np.int32)
    parts = []
    for start in range(0, len(ids), _PREFILL_CHUNK):
        part = ids[start : start + _PREFILL_CHUNK].tolist()
        n = len(part)
        batch = Batch(part, list(range(start, start + n)), [0] * n, [blocks], list(range(n)))
        parts.append(np.array([full_logits(row) for row in runtime.forward(batch)]))
    return np.concatenate(parts)
