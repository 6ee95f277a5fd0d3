"""Synthetic files: right shapes and types, sane numbers, and a vocabulary that a tokenizer accepts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ternrun.bench.synthetic import HEAD_TYPES, SHAPES, main, random_floats, write_synthetic
from ternrun.bench.vocabulary import full_vocabulary
from ternrun.errors import UsageError
from ternrun.loader.model import open_model
from ternrun.loader.quants.table import decode, trits
from ternrun.loader.tokenizers.tokenizer import Tokenizer
from tests.fakes import fake_config
from tests.reference import forward

TINY = fake_config("bitnet-b1.58", vocab_size=300)


def test_shapes_are_those_of_the_models_they_are_named_after() -> None:
    config, own_head = SHAPES["2b4t"]
    assert (config.dim, config.n_layers, config.n_heads, config.n_kv_heads, config.ffn_dim) == (2560, 30, 20, 5, 6912)
    assert (config.vocab_size, config.activation, own_head) == (128256, "relu2", False)
    assert SHAPES["nano-125m"][0].head_dim == 64
    assert SHAPES["8b"][1]


@pytest.mark.parametrize("type_name", ["I2_S", "TQ1_0", "TQ2_0", "Q2_0", "IQ1_BN", "IQ2_BN", "IQ2_BN_R4"])
def test_every_ternary_encoding_is_sound_and_runs(type_name: str, tmp_path: Path) -> None:
    path = write_synthetic(tmp_path / "m.gguf", TINY, type_name)
    with open_model(path) as model:
        assert model.weights.config.dim == TINY.dim
        codes = {n: trits(t.type, t.data, t.shape)[0] for n, t in model.weights.tensors.items() if t.type == type_name}
        assert len(codes) == 14
        assert all(abs(float((c != 0).mean()) - 2 / 3) < 0.02 for c in codes.values())
        assert not np.array_equal(codes["blk.0.ffn_up.weight"], codes["blk.1.ffn_up.weight"])
        logits = forward(model.weights, [1, 2, 3])
        assert np.isfinite(logits).all()
        assert logits.std() > 0


@pytest.mark.parametrize("head", HEAD_TYPES)
def test_heads_of_every_type_have_sizes_of_real_ones_and_no_two_rows_alike(head: str) -> None:
    values = decode(head, random_floats(head, (64, 256), np.random.default_rng(0)), (64, 256))
    assert 0.005 < values.std() < 0.05
    assert np.abs(values).max() < 0.2
    assert len(np.unique(values, axis=0)) == 64


def test_same_seed_same_file(tmp_path: Path) -> None:
    files = [write_synthetic(tmp_path / f"{i}.gguf", TINY, seed=seed).read_bytes() for i, seed in enumerate((3, 3, 4))]
    assert files[0] == files[1] != files[2]


def test_full_vocabulary_is_one_a_tokenizer_can_use() -> None:
    keys = full_vocabulary(5000)
    tokenizer = Tokenizer.from_gguf(keys)
    assert tokenizer.vocab_size == 5000
    assert len(set(keys["tokenizer.ggml.tokens"])) == 5000
    text = "def fibonacci(n): return 12345 é🙂"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) < len(text.encode())  # merges do merge


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="'huge' is not a shape"):
        write_synthetic(tmp_path / "m.gguf", "huge")
    assert main(["nano-125m", str(tmp_path / "m.gguf"), "--type", "nope"]) == 2
    assert "NOPE and F16 are not types" in capsys.readouterr().err
