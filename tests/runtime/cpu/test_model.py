"""What the CPU backend refuses, before any kernel sees it; and that a step depends on nothing but its own sequences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ternrun.errors import LoadError, UsageError
from ternrun.loader.quants.table import decode, encode, encode_trits
from ternrun.runtime import cpu
from ternrun.runtime.backend.protocol import Batch
from ternrun.runtime.config import EngineConfig, KvType
from ternrun.runtime.weights import Tensor, Weights
from tests.fakes import fake_weights
from tests.runtime.cpu.harness import Machine
from tests.runtime.cpu.models import batch_of, forward, loaded, logits_of

SIZES = {"dim": 64, "ffn_dim": 128, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "vocab_size": 50}
WEIGHTS = fake_weights("llama", "Q2_0", **SIZES)
IDS = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens": [3, 50]}, "token id"),
        ({"tokens": [-1, 3]}, "token id"),
        ({"positions": [0, 64]}, "position"),
        ({"positions": [-1, 0]}, "position"),
        ({"slots": [0, 1]}, "slot"),
        ({"slots": [-1, 0]}, "slot"),
        ({"block_tables": [[0, 4, 0, 0]]}, "cache block"),
        ({"block_tables": [[0, -1, 0, 0]]}, "cache block"),
        ({"block_tables": [[0]], "positions": [15, 16]}, "position"),
        ({"outputs": [2]}, "output"),
        ({"outputs": [-1]}, "output"),
        ({"outputs": [0, 0, 1]}, "a step of 2 tokens has no 3 outputs"),
        ({"outputs": [1] * 100000}, "a step of 2 tokens has no 100000 outputs"),
        ({"top_logits": [1]}, "top_logits names 1 of 2 outputs"),
        ({"tokens": [], "positions": [], "slots": [], "outputs": []}, "a step takes 1 to"),
        ({"positions": [0]}, "tokens"),
        ({"slots": [0]}, "tokens"),
    ],
)
def test_refuses_numbers_out_of_range(changes: dict[str, Any], words: str) -> None:
    with loaded(WEIGHTS) as model:
        for run in (model.forward, model.embed):
            with pytest.raises(ValueError, match=words):
                run(batch_of([3, 1], **changes))
        assert forward(model, batch_of([3, 1])).shape == (2, 50)


def test_looks_again_at_a_table_that_may_have_changed() -> None:
    table = np.arange(4, dtype=np.int32)
    with loaded(WEIGHTS) as model:
        for _ in range(2):
            model.forward(batch_of([3, 1], blocks=table))
        table[2] = 4
        with pytest.raises(ValueError, match="cache block"):
            model.forward(batch_of([3, 1], blocks=table))
        before = forward(model, batch_of([3, 1], 14, blocks=np.array([0, 1, 2, 3])))
        other = forward(model, batch_of([3, 1], 14, blocks=np.array([3, 1, 2, 3])))
    assert not np.array_equal(before, other)  # another past


def test_refuses_more_tokens_than_a_step_holds() -> None:
    with loaded(WEIGHTS, prefill_chunk=4, max_batch=2) as model:
        assert len(model.forward(batch_of(IDS[:6]))) == 6
        with pytest.raises(ValueError, match="a step takes 1 to 6 tokens, got 7"):
            model.forward(batch_of(IDS[:7]))


def test_sequences_do_not_disturb_each_other() -> None:
    """Three sequences in one step, over interleaved blocks, some with a past: each as if it were alone."""
    rng = np.random.default_rng(1)
    texts = [rng.integers(0, 50, n).tolist() for n in (40, 17, 33)]
    with loaded(WEIGHTS, threads=2, kv_type="f16") as model:
        alone = [logits_of(model, text) for text in texts]
    blocks = np.array([[5, 0, 7], [2, 2, 2], [1, 6, 3]])
    blocks[1, 1] = 4
    found: list[list[np.ndarray]] = [[], [], []]
    with loaded(WEIGHTS, threads=2, kv_type="f16", kv_tokens=128) as model:
        done = [0, 0, 0]
        for counts in ((20, 1, 0), (19, 16, 30), (1, 0, 2), (0, 0, 1)):
            spans = [range(d, d + n) for d, n in zip(done, counts, strict=True)]
            wanted = [s for s, span in enumerate(spans) for _ in span]
            logits = model.forward(
                Batch(
                    [texts[s][p] for s, span in enumerate(spans) for p in span],
                    [p for span in spans for p in span],
                    wanted, list(blocks.astype(np.int32)), list(range(len(wanted))),
                )
            )  # fmt: skip
            for s, row in zip(wanted, logits, strict=True):
                found[s].append(row.copy())
            done = [d + n for d, n in zip(done, counts, strict=True)]
    for rows, text in zip(found, alone, strict=True):
        np.testing.assert_array_equal(np.stack(rows), text)


def test_only_wanted_outputs_are_computed() -> None:
    with loaded(WEIGHTS) as model:
        everything = logits_of(model, IDS)
        some = forward(model, batch_of(IDS, outputs=[1, 6]))
        assert len(model.forward(batch_of(IDS, outputs=[]))) == 0
    np.testing.assert_array_equal(some, everything[[1, 6]])


def changed(name: str, tensor: Tensor) -> Weights:
    return Weights(WEIGHTS.config, {**WEIGHTS.tensors, name: tensor})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_refuses_norms_that_are_no_numbers(bad: float, kind: str) -> None:
    name = "blk.1.ffn_norm.weight"
    data = encode(kind, np.ones((1, 64), np.float32)).copy()
    one = np.array([bad], np.float32)
    bits = {"F32": one.view(np.uint8), "F16": one.astype(np.float16).view(np.uint8), "BF16": one.view(np.uint8)[2:]}[
        kind
    ]
    data[: len(bits)] = bits
    with pytest.raises(LoadError, match=f"tensor {name} holds values that are not finite"):
        cpu.load(changed(name, Tensor(name, kind, (64,), data)), EngineConfig(threads=1))


@pytest.mark.parametrize("kv", ["f32", "f16", "int8"])
@pytest.mark.parametrize("layers", ["F16", "Q2_0"])
def test_a_token_that_is_no_number_makes_none_of_those_behind_it(machine: Machine, layers: str, kv: KvType) -> None:
    """Codes, as of activations and cached keys, cannot say so; their steps do."""
    weights = fake_weights("bitnet-b1.58", layers, head="F32", tied=False, **SIZES)
    embedding = weights.tensors["token_embd.weight"]
    rows = embedding.data.copy().view(np.float32).reshape(embedding.shape)
    rows[3, 5] = np.nan
    tensors = {**weights.tensors, embedding.name: replace(embedding, data=rows.view(np.uint8).reshape(-1))}
    with loaded(Weights(weights.config, tensors), machine.isa, kv_type=kv) as model:
        logits = logits_of(model, [1, 3, 4, 2])
    assert np.isfinite(logits[0]).all()
    assert np.isnan(logits[1:]).all()


def test_refuses_vectors_of_other_types() -> None:
    name = "output_norm.weight"
    with pytest.raises(LoadError, match="a vector must be F32, F16 or BF16"):
        cpu.load(changed(name, Tensor(name, "Q8_0", (64,), np.zeros(68, np.uint8))), EngineConfig(threads=1))


def test_codes_that_are_not_ternary() -> None:
    """A matrix that holds one is refused; an embedding that is only looked up reads it as 2, as `decode` does."""
    name, w = "token_embd.weight", np.zeros((50, 64), np.int8)
    w[49, 63] = 2
    tensor = Tensor(name, "IQ2_BN", w.shape, encode_trits("IQ2_BN", w, np.ones((50, 1), np.float32)))
    with pytest.raises(LoadError, match=r"token_embd\.weight holds codes that are not ternary"):
        cpu.load(changed(name, tensor), EngineConfig(threads=1))
    head = {"output.weight": replace(WEIGHTS.tensors[name], name="output.weight")}
    plain = Tensor(name, "F32", w.shape, encode("F32", decode("IQ2_BN", tensor.data, w.shape)))
    results = []
    for embedding in (tensor, plain):
        with loaded(Weights(WEIGHTS.config, {**WEIGHTS.tensors, name: embedding, **head})) as model:
            results.append(logits_of(model, [49, 3]))
    np.testing.assert_array_equal(results[0], results[1])


@pytest.mark.parametrize("threads", [63, 1000])
def test_refuses_too_many_threads(threads: int) -> None:
    with pytest.raises(UsageError, match="threads must be from 1 to 62"):
        cpu.load(WEIGHTS, EngineConfig(threads=threads))


def test_describes_itself() -> None:
    with loaded(WEIGHTS, "portable", threads=2) as model:
        assert model.description == "cpu/portable, 2 threads: forced"
        assert (model.block_size, model.n_blocks) == (16, 4)
