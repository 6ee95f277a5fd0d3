"""The screened head: the logits a step asks to keep are those of the full head, bit for bit, also on hostile rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ternrun.loader.quants import encode
from ternrun.runtime.weights import Weights
from tests.fakes import fake_weights
from tests.runtime.cpu.harness import ISAS
from tests.runtime.cpu.models import batch_of, forward, loaded

VOCABULARY, DIM = 4999, 96  # a last block of seven rows
IDS = list(range(0, 4000, 100))
KEEP = [1, 2, 3, 5, 40, 64, 100, 300, 4999, 1] * 4


def random_rows(rng: np.random.Generator) -> NDArray[np.float32]:
    """Plain random rows."""
    return rng.standard_normal((VOCABULARY, DIM)).astype(np.float32)


def near_twins(rng: np.random.Generator) -> NDArray[np.float32]:
    """Rows in groups that differ by less than their 8-bit copies can tell."""
    return (np.repeat(random_rows(rng)[:250], 20, axis=0)[:VOCABULARY] + 1e-4 * random_rows(rng)).astype(np.float32)


def outliers(rng: np.random.Generator) -> NDArray[np.float32]:
    """One huge column in some rows: their copies are coarse everywhere else."""
    rows = random_rows(rng)
    rows[::7, 5] = 1000
    rows[3::11] *= 40
    return rows


def hardly_any(rng: np.random.Generator) -> NDArray[np.float32]:
    """Rows of zeros, rows that are all alike, rows that are tiny."""
    rows = random_rows(rng)
    rows[100:3000] = 0
    rows[3000:4000] = rows[50]
    rows[4000:4900] *= 1e-20
    return rows


def negative(rng: np.random.Generator) -> NDArray[np.float32]:
    """All logits of the same sign and nearly the same size."""
    return (-np.abs(rng.standard_normal((1, DIM))) - 1e-3 * random_rows(rng)).astype(np.float32)


ROWS = [random_rows, near_twins, outliers, hardly_any, negative]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["F16", "F32"])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("states", ["many", "three", "peaked"])
def test_kept_logits_are_those_of_the_full_head(
    states: str, rows: Callable[..., NDArray[np.float32]], kind: str, isa: str
) -> None:
    """Many hidden states are screened by halves of them, unless an element towers over the rest; three never are."""
    ids, keeps = (IDS[:3], KEEP[3:6]) if states == "three" else (IDS, KEEP)
    weights = fake_weights(
        "qwen3", "HF_PACKED", head=kind, tied=False, dim=DIM, ffn_dim=64, n_layers=1, n_heads=2, n_kv_heads=2,
        head_dim=16, vocab_size=VOCABULARY,
    )  # fmt: skip
    head = replace(weights.tensors["output.weight"], data=encode(kind, rows(np.random.default_rng(1))), scale=-0.5)
    norm = weights.tensors["output_norm.weight"]
    factors = np.where(np.arange(DIM) == 7, 30 if states == "peaked" else 1, 1).astype(np.float32)
    norm = replace(norm, type="F32", data=encode("F32", factors[None]))
    weights = Weights(weights.config, {**weights.tensors, "output.weight": head, "output_norm.weight": norm})
    with loaded(weights, isa, threads=2) as model:
        full = forward(model, batch_of(ids))
        kept = forward(model, batch_of(ids, keep=keeps))
        rows = model.forward(batch_of(ids, keep=keeps))
        best = [row.best if model.screen else int(row.argmax()) for row in rows]
    assert best == full.argmax(axis=1).tolist()
    skipped = np.isneginf(kept)
    np.testing.assert_array_equal(kept[~skipped], full[~skipped])
    for row, logits, keep in zip(kept, full, keeps, strict=True):
        bar = np.sort(logits)[-keep]
        np.testing.assert_array_equal(row[logits >= bar], logits[logits >= bar])
    if rows is random_rows and states == "many" and model.screen is not None:
        assert skipped.mean() > 0.5  # else this tests nothing
