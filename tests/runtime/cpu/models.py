"""Whole models on the CPU backend: loaded, run over token ids, compared with `tests/reference.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.backend.protocol import Batch
from ternrun.runtime.config import EngineConfig
from ternrun.runtime.cpu.model import CpuModel
from ternrun.runtime.sampling.sampler import full_logits
from ternrun.runtime.weights import Weights
from tests import reference

F32 = NDArray[np.float32]
#: Steps from the middle between two int8 codes: far above what float rounding moves an activation by.
CLEAR = 2e-4


@contextmanager
def loaded(weights: Weights, isa: str = "", **engine: Any) -> Iterator[CpuModel]:
    """A model that is closed afterwards; one thread and a float32 cache unless asked for otherwise."""
    settings = {"threads": 1, "kv_type": "f32", "context": 64} | engine
    model = CpuModel(weights, EngineConfig(**settings), isa=isa)
    try:
        yield model
    finally:
        model.close()


def batch_of(ids: list[int], start: int = 0, *, blocks: Any = None, **changes: Any) -> Batch:
    """One sequence's next tokens, all of whose results are wanted; `changes` replace fields."""
    n = len(ids)
    table = np.arange(4) if blocks is None else blocks
    fields = {
        "tokens": ids, "positions": list(range(start, start + n)), "slots": [0] * n, "block_tables": [table],
        "outputs": list(range(n)),
    } | changes  # fmt: skip
    fields["block_tables"] = [np.asarray(row, np.int32) for row in fields["block_tables"]]
    return Batch(**fields)


def logits_of(model: CpuModel, ids: list[int], chunks: tuple[int, ...] = ()) -> F32:
    """Logits (T, vocab) of one sequence, run in steps of the given sizes; what is left runs in one."""
    bounds = np.cumsum([0, *chunks, len(ids) - sum(chunks)])
    return np.concatenate([forward(model, batch_of(ids[a:b], a)) for a, b in pairwise(bounds) if a < b])


def forward(model: CpuModel, batch: Batch) -> F32:
    """All logits (n, vocab) of a step, -inf where the model says no more."""
    rows = [full_logits(row) for row in model.forward(batch)]
    return np.array(rows).reshape(len(batch.outputs), model.config.vocab_size)


def difference(found: F32, wanted: F32) -> float:
    """The largest difference as a share of the range of the wanted values."""
    return float(np.abs(found - wanted).max() / np.ptp(wanted))


def distances(weights: Weights, ids: list[int]) -> tuple[F32, F32]:
    """The reference's logits, and for each position how near any of its activations came to a tie.

    In steps: 0.5 is a whole number, 0 lies just between two int8 codes.
    """
    nearest = np.full(len(ids), 0.5)
    quantize = reference.quantize

    def watched(x: F32) -> Any:
        steps = x * (np.float32(127) / np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.float32(1e-5)))
        np.minimum(nearest, np.abs(steps - np.floor(steps) - 0.5).min(axis=-1), out=nearest)
        return quantize(x)

    with mock.patch.object(reference, "quantize", watched):
        logits = reference.forward(weights, ids, kv="f32")
    return logits, nearest


def clear_sequence(weights: Weights, length: int, seed: int = 0) -> tuple[list[int], F32]:
    """Random ids (length,) without ties, and the reference's logits (length, vocab).

    A tie: an activation within CLEAR steps of the middle between two int8 codes. There float rounding decides which
    code it becomes, two right implementations differ, and the difference (about 1e-3 of a logit's range) reaches every
    later position. So ids are drawn one by one, and drawn again where the new position holds a tie; then every position
    can be compared. Fails if more than 30 draws a position are needed.
    """
    rng = np.random.default_rng(seed)
    ids: list[int] = []
    for _ in range(30 * length):
        drawn = [*ids, int(rng.integers(weights.config.vocab_size))]
        logits, nearest = distances(weights, drawn)
        if nearest[-1] >= CLEAR:
            ids = drawn
        if len(ids) == length:
            return ids, logits
    raise AssertionError(f"only {len(ids)} positions without ties in {30 * length} draws")
