"""The screened head: the logits a step asks to keep are those of the full head, bit for bit, also on hostile rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.quants.table import encode
from ternrun.runtime.config import SamplingParams
from ternrun.runtime.sampling.sampler import sample
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


def weights_with(head: NDArray[np.uint8], kind: str, norm: NDArray[np.float32] | None = None) -> Weights:
    """A small model with this output matrix, and these factors of the norm before it."""
    weights = fake_weights(
        "qwen3", "HF_PACKED", head=kind, tied=False, dim=DIM, ffn_dim=64, n_layers=1, n_heads=2, n_kv_heads=2,
        head_dim=16, vocab_size=VOCABULARY,
    )  # fmt: skip
    tensors = dict(weights.tensors)
    tensors["output.weight"] = replace(tensors["output.weight"], data=head, scale=-0.5)
    if norm is not None:
        tensors["output_norm.weight"] = replace(tensors["output_norm.weight"], type="F32", data=encode("F32", norm))
    return Weights(weights.config, tensors)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("damaged", [17, 3000, VOCABULARY - 1])
def test_a_row_that_is_no_number_is_not_passed_over(damaged: int, isa: str) -> None:
    """Else damaged weights would speak, as they do not where all logits are computed."""
    rows = random_rows(np.random.default_rng(1))
    rows[damaged, 5] = np.nan
    with loaded(weights_with(rows.reshape(-1).view(np.uint8), "F32"), isa, threads=2) as model:
        for keep in (0, 1, 1):  # the copy is made for the second step that wants it
            row = model.forward(batch_of(IDS[:1], top_logits=[keep]))[0]
        with pytest.raises(LoadError, match="in place of logits"):
            sample(row, SamplingParams(), [1], 0)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["F16", "F32"])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("states", ["many", "three", "peaked"])
def test_kept_logits_are_those_of_the_full_head(
    states: str, rows: Callable[..., NDArray[np.float32]], kind: str, isa: str
) -> None:
    """Many hidden states are screened by halves of them, unless an element towers over the rest; three never are."""
    ids, keeps = (IDS[:3], KEEP[3:6]) if states == "three" else (IDS, KEEP)
    factors = np.where(np.arange(DIM) == 7, 30 if states == "peaked" else 1, 1).astype(np.float32)
    weights = weights_with(encode(kind, rows(np.random.default_rng(1))), kind, factors[None])
    with loaded(weights, isa, threads=2) as model:
        full = forward(model, batch_of(ids))
        kept = forward(model, batch_of(ids, top_logits=keeps))
        rows = model.forward(batch_of(ids, top_logits=keeps))
        best = [row.best if model.screen else int(row.argmax()) for row in rows]
    assert best == full.argmax(axis=1).tolist()
    skipped = np.isneginf(kept)
    np.testing.assert_array_equal(kept[~skipped], full[~skipped])
    for row, logits, keep in zip(kept, full, keeps, strict=True):
        bar = np.sort(logits)[-keep]
        np.testing.assert_array_equal(row[logits >= bar], logits[logits >= bar])
    if rows is random_rows and states == "many" and model.screen is not None:
        assert skipped.mean() > 0.5  # else this tests nothing
