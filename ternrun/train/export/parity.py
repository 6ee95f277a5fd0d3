"""Do the torch model and the runtime, reading the exported file, say the same? The numbers that prove an export."""

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
from ternrun.runtime.backend.registry import pick
from ternrun.runtime.config import EngineConfig
from ternrun.runtime.sampling.sampler import whole
from ternrun.train.model.decoder import Decoder

_CHUNK = 128  # tokens the runtime takes a step


@dataclass(frozen=True, slots=True)
class Agreement:
    """Over `positions`: how often the likeliest token is the same, and how far logits lie apart, in logit ranges."""

    positions: int
    same: float
    median: float  # of the largest difference at each position
    largest: float


def agreement(model: Decoder, path: Path, tokens: NDArray[Any], positions: int, kv_type: Any = "f32") -> Agreement:
    """Run both over `tokens` in windows of the model's context; `model` holds the values the file does, in f32."""
    with running(path, model.shape.context, kv_type) as runtime:
        windows = in_windows(tokens[:positions], model.shape.context)
        return compared((torch_logits(model, ids), runtime_logits(runtime, ids)) for ids in windows)


def in_windows(tokens: NDArray[Any], size: int) -> Iterator[NDArray[np.int32]]:
    """All of `tokens` (n,) in windows of `size`, the last as short as it is."""
    for start in range(0, len(tokens), size):
        yield np.asarray(tokens[start : start + size], np.int32)


def compared(pairs: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> Agreement:
    """Of two readers' logits (T, V) of the same windows."""
    apart, same = [], []
    for ours, theirs in pairs:
        apart.append(np.abs(ours - theirs).max(-1) / np.ptp(ours))
        same.append(ours.argmax(-1) == theirs.argmax(-1))
    distance, equal = np.concatenate(apart), np.concatenate(same)
    return Agreement(len(equal), float(equal.mean()), float(np.median(distance)), float(distance.max()))


@contextmanager
def running(path: Path, context: int, kv_type: Any = "f32") -> Iterator[Model]:
    """The file at `path` in the runtime, one sequence of `context` tokens at a time. Raises LoadError."""
    with open_model(path) as file:
        engine = EngineConfig(context=context, max_batch=1, prefill_chunk=_CHUNK, kv_type=kv_type)
        runtime = pick("auto")[0].load(file.weights, engine)
        try:
            yield runtime
        finally:
            runtime.close()


@torch.no_grad()
def torch_logits(model: Decoder, ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """(T, V) of one sequence of ids (T,)."""
    logits: NDArray[np.float32] = model.logits(torch.from_numpy(ids.astype(np.int64))[None])[0].numpy()
    return logits


def runtime_logits(runtime: Model, ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """(T, V) of one sequence of ids (T,), written over whatever the cache held."""
    blocks = np.arange(-(-len(ids) // runtime.block_size), dtype=np.int32)
    parts = []
    for start in range(0, len(ids), _CHUNK):
        part = ids[start : start + _CHUNK].tolist()
        n = len(part)
        batch = Batch(part, list(range(start, start + n)), [0] * n, [blocks], list(range(n)))
        parts.append(np.array([whole(row) for row in runtime.forward(batch)]))
    return np.concatenate(parts)
