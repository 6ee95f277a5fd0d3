"""Conversion: every form of a model, written in every encoding that can hold it, runs as before."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ternrun.errors import LoadError, UsageError
from ternrun.loader import convert as module
from ternrun.loader.architectures.tensor_names import is_linear
from ternrun.loader.convert import TYPES, convert
from ternrun.loader.gguf.file import open_gguf, write_gguf
from ternrun.loader.model import open_model
from ternrun.loader.quants.table import decode, encode
from tests.fakes import fake_gguf, fake_weights
from tests.fakes_hf import MODEL_TYPES, fake_hf, write_seed
from tests.reference import forward

SMALL: dict[str, Any] = {"dim": 256, "n_heads": 2, "n_kv_heads": 1, "head_dim": 128, "ffn_dim": 256, "vocab_size": 260}
IDS = [3, 1, 200, 7, 7, 90]
BITNET = {"quant_method": "bitnet"}
TERNARY = ("tq2_0", "tq1_0", "i2_s", "q2_0", "iq2_bn", "iq1_bn", "kernel")
NEOX = {"rope": {"style": "neox"}}


def logits(path: Path) -> np.ndarray[Any, Any]:
    with open_model(path) as model:
        return forward(model.weights, IDS, kv="f32")


@pytest.mark.parametrize("type_name", TYPES)
def test_ternary_gguf_to_every_type(type_name: str, tmp_path: Path) -> None:
    weights = fake_weights("bitnet-b1.58", "TQ2_0", **SMALL)
    path = fake_gguf(tmp_path / "a.gguf", weights, general__name="A", general__license="mit")
    made = convert(path, tmp_path / "b.gguf", type_name)
    with open_model(made) as model:
        assert {t.type for n, t in model.weights.tensors.items() if ".ffn_up." in n} == {
            "T9_ROW" if type_name == "kernel" else type_name.upper()
        }
        assert model.weights.config == weights.config
        assert model.metadata["general.license"] == "mit"
        assert model.tokenizer.encode("hello") == [*b"hello"]
        if type_name in TERNARY:
            assert np.array_equal(forward(model.weights, IDS), forward(weights, IDS))
        elif type_name == "f32":  # and back again
            with open_model(convert(made, tmp_path / "c.gguf", "tq1_0")) as back:
                assert np.array_equal(forward(back.weights, IDS), forward(weights, IDS))


@pytest.mark.parametrize("arch", MODEL_TYPES)
def test_folders_become_files_that_give_the_same_logits(arch: str, tmp_path: Path) -> None:
    weights = fake_weights(arch, "I2_S", **SMALL, **NEOX)
    folder = fake_hf(tmp_path / "m", weights, quantization_config=BITNET)
    for type_name in ("tq2_0", "i2_s", "f32"):
        made = convert(folder, tmp_path / f"{type_name}.gguf", type_name)
        with open_model(made) as model, open_model(folder) as source:
            if type_name != "f32":
                np.testing.assert_allclose(forward(model.weights, IDS), forward(source.weights, IDS), atol=2e-5)
            assert model.weights.config.rope.style == ("norm" if arch == "llama" else "neox")
            text = "def f(x): return 'é🙂'<|eos|>"
            assert model.tokenizer.encode(text) == source.tokenizer.encode(text)
            assert model.tokenizer.eos_ids == source.tokenizer.eos_ids


def test_llama_rows_are_permuted_so_that_pairs_lie_side_by_side(tmp_path: Path) -> None:
    weights = fake_weights("llama", "F32", extras=("qkv_bias",), **SMALL, **NEOX)
    made = convert(fake_hf(tmp_path / "m", weights), tmp_path / "a.gguf", "f32")
    np.testing.assert_allclose(logits(made), forward(weights, IDS, kv="f32"), atol=1e-5)
    with open_model(made) as model:
        old, new = (
            w.tensors["blk.0.attn_k.weight"].data.view(np.float32).reshape(128, 256) for w in (weights, model.weights)
        )
        assert np.array_equal(new[0::2], old[:64])
        assert np.array_equal(new[1::2], old[64:])


def test_rope_factors_and_scales_are_carried(tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}  # fmt: skip
    weights = fake_weights("llama", "F16", **SMALL, **NEOX)
    folder = fake_hf(tmp_path / "m", weights, rope_scaling=scaling)
    made = convert(folder, tmp_path / "a.gguf", "f16")
    np.testing.assert_allclose(logits(made), logits(folder), atol=1e-4)
    with open_model(made) as model:
        assert max(model.weights.config.rope.frequency_factors) == 8.0
    scaled = fake_weights("bitnet", "I2_S", extras=("scale",), **SMALL)
    made = convert(fake_gguf(tmp_path / "b.gguf", scaled), tmp_path / "c.gguf", "iq2_bn")
    np.testing.assert_allclose(logits(made), forward(scaled, IDS, kv="f32"), atol=1e-4)


def test_seed_projects_model_becomes_an_ordinary_file(tmp_path: Path) -> None:
    weights = fake_weights("nanochat-ternary", "Q1_58", tied=False, head="F16", mhc_streams=4, **SMALL)
    streams = np.random.default_rng(0).standard_normal((4, 40)).astype(np.float32)
    seed = write_seed(tmp_path / "m.gguf", weights, streams)
    assert np.array_equal(logits(convert(seed, tmp_path / "a.gguf", "q2_0")), logits(seed))


@pytest.mark.parametrize("head", ["q8_0", "f16", "bf16", "f32"])
def test_head_may_change_type(head: str, tmp_path: Path) -> None:
    weights = fake_weights("qwen3", "I2_S", tied=False, head="F32", **SMALL)
    path = fake_gguf(tmp_path / "a.gguf", weights)
    with open_model(convert(path, tmp_path / "b.gguf", "i2_s", head=head)) as model:
        for name in ("token_embd.weight", "output.weight"):
            old, new = weights.tensors[name], model.weights.tensors[name]
            assert new.type == head.upper()
            assert np.array_equal(new.data, encode(new.type, decode("F32", old.data, old.shape)))


def test_float_weights_that_are_ternary_are_recognized_and_others_refused(tmp_path: Path) -> None:
    ternary = fake_weights("qwen3", "TQ2_0", **SMALL)
    dense = convert(fake_gguf(tmp_path / "t.gguf", ternary), tmp_path / "dense.gguf", "f16")
    back = convert(dense, tmp_path / "back.gguf", "tq1_0")
    np.testing.assert_allclose(logits(back), forward(ternary, IDS, kv="f32"), atol=1e-5)
    plain = fake_gguf(tmp_path / "plain.gguf", fake_weights("qwen3", "F16", **SMALL))
    with pytest.raises(UsageError, match=r"'blk\.0\.attn_q\.weight': its weights are not ternary; .* --absmean"):
        convert(plain, tmp_path / "no.gguf", "tq2_0")
    assert not list(tmp_path.glob("no.gguf*"))
    rounded = convert(plain, tmp_path / "yes.gguf", "tq2_0", absmean=True)
    with open_model(rounded) as model:
        assert model.weights.tensors["blk.0.attn_q.weight"].type == "TQ2_0"


def test_row_and_block_scales_are_kept_or_refused(tmp_path: Path) -> None:
    weights = fake_weights("qwen3", "F32", **SMALL)
    rng = np.random.default_rng(0)
    for name, tensor in weights.tensors.items():
        if is_linear(name):
            rows = np.float16(rng.uniform(0.01, 0.1, (tensor.shape[0], 1))).astype(np.float32)
            values = rng.integers(-1, 2, tensor.shape) * rows
            tensor.data[:] = np.ascontiguousarray(values, np.float32).view(np.uint8).ravel()
    path = fake_gguf(tmp_path / "a.gguf", weights)
    for type_name in ("tq2_0", "q2_0", "iq2_bn"):
        made = convert(path, tmp_path / f"{type_name}.gguf", type_name)
        again = convert(made, tmp_path / f"{type_name}-f32.gguf", "f32")
        np.testing.assert_allclose(logits(again), forward(weights, IDS, kv="f32"), atol=1e-4)
    with pytest.raises(UsageError, match="I2_S holds one scale a tensor"):
        convert(path, tmp_path / "no.gguf", "i2_s")


def test_scale_too_small_for_fp16_is_refused(tmp_path: Path) -> None:
    weights = fake_weights("qwen3", "IQ2_BN", **SMALL)
    for tensor in weights.tensors.values():
        if tensor.type == "IQ2_BN":
            rows = tensor.data.reshape(tensor.shape[0], -1)
            rows[:, :4] = np.frombuffer(np.float32(1e-7).tobytes(), np.uint8)
    path = fake_gguf(tmp_path / "a.gguf", weights)
    with pytest.raises(UsageError, match="scale 1e-07 does not fit the fp16 of TQ2_0"):
        convert(path, tmp_path / "b.gguf", "tq2_0")
    convert(path, tmp_path / "b.gguf", "iq2_bn")


def test_progress_counts_up_to_the_whole(tmp_path: Path) -> None:
    path = fake_gguf(tmp_path / "a.gguf", fake_weights("qwen3", "I2_S", **SMALL))
    seen: list[tuple[int, int]] = []
    convert(path, tmp_path / "b.gguf", "tq2_0", progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] < (tmp_path / "b.gguf").stat().st_size


def test_rows_that_a_type_cannot_divide_are_refused_with_those_that_can(tmp_path: Path) -> None:
    weights = fake_weights("qwen3", "F16", **(SMALL | {"dim": 192}))
    with pytest.raises(
        UsageError,
        match=r"\[256, 192\] does not divide .* TQ2_0; .*: i2_s, q2_0, .*, kernel, q4_0, q4_1, q5_0, q5_1, q8_0",
    ):
        convert(fake_gguf(tmp_path / "a.gguf", weights), tmp_path / "b.gguf", "tq2_0")


def test_parts_of_a_split_model_are_not_written_over(tmp_path: Path) -> None:
    weights = fake_weights("llama", "I2_S", **SMALL)
    whole = open_gguf(fake_gguf(tmp_path / "whole.gguf", weights))
    tensors = list(whole.tensors.values())
    parts = [tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    write_gguf(parts[0], {**whole.metadata, "split.no": 0, "split.count": 2}, tensors[:5])
    write_gguf(parts[1], {"split.no": 1, "split.count": 2}, tensors[5:])
    before = [part.read_bytes() for part in parts]
    for target in (*parts, tmp_path / "n-00001-of-00002.gguf"):
        with pytest.raises(UsageError, match="is the model itself|one of 2 parts"):
            convert(parts[0], target, "tq1_0")
    assert [part.read_bytes() for part in parts] == before
    assert len(list(tmp_path.iterdir())) == 3
    made = convert(parts[0], tmp_path / "n-00001-of-00001.gguf", "tq1_0")  # one of one: that can be opened
    assert np.array_equal(logits(made), forward(weights, IDS, kv="f32"))


def test_users_mistakes(tmp_path: Path) -> None:
    path = fake_gguf(tmp_path / "a.gguf", fake_weights("qwen3", "I2_S", **SMALL))
    for target, type_name, fault in (
        (
            tmp_path / "b.gguf",
            "q4_k",
            "'q4_k' is a type that llama.cpp's llama-quantize makes .* Q4_K.; ternrun writes tq2_0",
        ),
        (tmp_path, "tq2_0", "is a folder"),
        (tmp_path / "none" / "b.gguf", "tq2_0", "lies in none that exists"),
        (path, "tq2_0", "is the model itself"),
    ):
        with pytest.raises(UsageError, match=fault):
            convert(path, target, type_name)
    with pytest.raises(UsageError, match="'q3' is not a type"):
        convert(path, tmp_path / "b.gguf", "tq2_0", head="q3")
    with pytest.raises(LoadError, match="does not exist"):
        convert(tmp_path / "gone.gguf", tmp_path / "b.gguf", "tq2_0")


def test_full_disk_leaves_the_old_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake_gguf(tmp_path / "a.gguf", fake_weights("qwen3", "I2_S", **SMALL))
    (tmp_path / "b.gguf").write_bytes(b"precious")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_gguf", full)
    with pytest.raises(UsageError, match=r"b\.gguf cannot be written: No space left on device; nothing was changed"):
        convert(path, tmp_path / "b.gguf", "tq2_0", force=True)
    assert (tmp_path / "b.gguf").read_bytes() == b"precious"
