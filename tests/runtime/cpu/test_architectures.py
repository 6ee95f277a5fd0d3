"""Every kind of decoder against the numpy reference, on every instruction set; sequences without ties (`models.py`)."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ternrun.loader.quants.table import decode, encode
from ternrun.runtime.encodings import ENCODINGS, nbytes
from ternrun.runtime.weights import Tensor, Weights
from tests.fakes import EXTRAS, fake_weights
from tests.reference import forward, hidden
from tests.runtime.cpu.harness import ISAS, machine
from tests.runtime.cpu.models import batch_of, clear_sequence, difference, loaded, logits_of

SMALL: dict[str, Any] = {"dim": 64, "ffn_dim": 128, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "vocab_size": 101}
LENGTH = 12
CASES: dict[str, dict[str, Any]] = {
    **{arch: {"arch": arch} for arch in EXTRAS},
    "streams of two": {"arch": "ternrun", "mhc_streams": 2},
    "all windows": {"arch": "gemma3", "sliding_window": 4, "sliding_layers": (True, True)},
    "softcap": {"arch": "gemma3", "logit_softcap": 5.0},
    "norms before each projection": {"arch": "qwen3", "extras": ("norm_in",)},
    "norms before each, biases": {
        "arch": "bitnet", "extras": ("norm_in", "qkv_bias", "output_bias", "ffn_bias", "scale"),
    },
    "post norms of streams": {"arch": "ternrun", "extras": ("qkv_bias",)},
    "yarn": {"arch": "llama", "rope": {"scaling": "yarn", "factor": 4.0, "original_context": 16}},
    "rope factors": {"arch": "llama", "rope": {"frequency_factors": tuple(np.linspace(1, 8, 8).tolist())}},
    "half rotated": {"arch": "qwen3", "rope": {"dim": 8}},
    "every fourth layer without rotation": {"arch": "smollm3", "n_layers": 4},
    "own head": {"arch": "llama", "tied": False},
    "odd widths": {"arch": "llama", "encoding": "HF_PACKED", "dim": 60, "ffn_dim": 100, "head_dim": 10, "head": "F32"},
    "one layer, one head": {"arch": "qwen2", "n_layers": 1, "n_heads": 1, "n_kv_heads": 1, "head_dim": 64},
    "ordinary weights": {"arch": "qwen2", "encoding": "F16"},
}  # fmt: skip


@cache
def model_of(name: str) -> tuple[Weights, list[int], NDArray[np.float32]]:
    """Weights, a sequence and its logits by the reference."""
    options = {"encoding": "Q2_0", **SMALL, **CASES[name]}
    weights = fake_weights(options.pop("arch"), options.pop("encoding"), seed=5, **options)
    return weights, *clear_sequence(weights, LENGTH, seed=len(name))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", CASES)
def test_architectures_agree_with_the_reference(name: str, isa: str) -> None:
    machine(isa)
    weights, ids, wanted = model_of(name)
    with loaded(weights, isa, threads=2) as model:
        together, one_by_one = logits_of(model, ids), logits_of(model, ids, (5, 1, 1, 1))
    assert difference(together, wanted) <= 1e-5
    np.testing.assert_array_equal(together, one_by_one)


@pytest.mark.parametrize("name", ["gemma3", "ternrun", "norms before each, biases"])
def test_hidden_states(name: str) -> None:
    weights, ids, _ = model_of(name)
    with loaded(weights) as model:
        logits = logits_of(model, ids)
        found = model.embed(batch_of(ids)).copy()
        np.testing.assert_array_equal(logits_of(model, ids), logits)
    assert difference(found, hidden(weights, ids, kv="f32")) <= 1e-5


HEADS = ("F16", "BF16", "F32", "Q8_0", "Q6_K", "Q4_K", "TQ2_0", "TQ1_0", "I2_S", "IQ2_BN", "Q2_0", "PQ2_0")


def head_of(kind: str, shape: tuple[int, int]) -> Tensor:
    """Weights of a head: random bytes with small scales, for Q2_0 and PQ2_0 all four codes."""
    encoding = ENCODINGS[kind]
    rng = np.random.default_rng(len(kind))
    blocks = rng.integers(0, 256, nbytes(kind, shape), np.uint8).reshape(-1, encoding.block_bytes)
    for at in {"Q6_K": (208,), "Q4_K": (0, 2)}.get(kind, (0,)):
        blocks[:, at : at + 2] = rng.uniform(0.001, 0.002, len(blocks)).astype(np.float16).view(np.uint8).reshape(-1, 2)
    return Tensor("token_embd.weight", kind, shape, blocks.reshape(-1))


@cache
def with_head(kind: str, tied: bool) -> tuple[Weights, list[int], NDArray[np.float32]]:
    """A llama whose embedding (and head, unless it has its own) is of that type."""
    crafted = kind in ("Q6_K", "Q4_K", "Q2_0", "PQ2_0")
    options: dict[str, Any] = {**SMALL, "dim": 256, "n_layers": 1, "vocab_size": 96}
    weights = fake_weights("llama", "Q2_0", head="F16" if crafted else kind, tied=tied, seed=6, **options)
    tensors, plain = dict(weights.tensors), dict(weights.tensors)
    for name in {"token_embd.weight", "output.weight"} & {*tensors} if crafted else ():
        tensors[name] = replace(head_of(kind, (96, 256)), name=name)
        values = decode(kind, tensors[name].data, (96, 256))
        plain[name] = Tensor(name, "F32", (96, 256), encode("F32", values))  # the reference knows no Q2_0 of four codes
    ids, logits = clear_sequence(Weights(weights.config, plain), 8)
    return Weights(weights.config, tensors), ids, logits


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", HEADS)
def test_types_of_heads_and_embeddings(kind: str, tied: bool, isa: str) -> None:
    weights, ids, wanted = with_head(kind, tied)
    with loaded(weights, isa) as model:
        assert difference(logits_of(model, ids), wanted) <= 1e-5


@pytest.mark.parametrize("isa", ISAS)
def test_half_precision_cache(isa: str) -> None:
    """Ordinary weights, so that no activation is rounded to a code: only the cache rounds."""
    weights = fake_weights("gemma3", "F16", seed=7, **SMALL)
    ids = np.random.default_rng(8).integers(0, 101, 40).tolist()
    with loaded(weights, isa, kv_type="f16") as model:
        assert difference(logits_of(model, ids, (17,)), forward(weights, ids, kv="f16")) <= 1e-4
