"""Metadata and tensor tables of every architecture: read back as written, and refused by name where they are wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ternrun.bench.vocabulary import byte_vocabulary
from ternrun.errors import ConfigError, LoadError
from ternrun.loader.architectures.assemble import assemble
from ternrun.loader.architectures.gguf_config import read_config
from ternrun.loader.architectures.table import ARCHITECTURES
from ternrun.loader.architectures.tensor_names import GROUPS
from ternrun.loader.architectures.write_config import write_config
from ternrun.loader.gguf.write import write_gguf
from ternrun.loader.model import open_model
from ternrun.loader.quants.table import encode
from ternrun.runtime.weights import Tensor, Weights
from tests.fakes import fake_config, fake_gguf, fake_weights
from tests.reference import forward

SMALL = {"dim": 128, "n_heads": 2, "n_kv_heads": 1, "ffn_dim": 128, "n_layers": 2, "vocab_size": 260}
IDS = [1, 5, 9, 250, 3]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("encoding", ["F32", "I2_S", "IQ2_BN"])
def test_file_of_every_architecture_runs_as_written(arch: str, encoding: str, tmp_path: Path) -> None:
    weights = fake_weights(arch, encoding, tied=arch != "llama", extras=("scale",), **SMALL)
    with open_model(fake_gguf(tmp_path / "model.gguf", weights)) as model:
        assert model.weights.config == weights.config
        assert np.array_equal(forward(model.weights, IDS), forward(weights, IDS))


@pytest.mark.parametrize("arch", ["llama", "qwen3", "gemma3", "ternrun"])
def test_optional_groups_are_kept(arch: str, tmp_path: Path) -> None:
    weights = fake_weights(arch, "F16", extras=ARCHITECTURES[arch].optional, **SMALL)
    with open_model(fake_gguf(tmp_path / "model.gguf", weights)) as model:
        assert model.weights.tensors.keys() == weights.tensors.keys()
        assert np.array_equal(forward(model.weights, IDS), forward(weights, IDS))


def test_head_may_have_a_bias(tmp_path: Path) -> None:
    weights = fake_weights("qwen2", "F16", tied=False, **SMALL)
    bias = np.linspace(-1, 1, 260).astype(np.float32)
    tensors = dict(weights.tensors) | {"output.bias": Tensor("output.bias", "F32", (260,), encode("F32", bias))}
    with open_model(fake_gguf(tmp_path / "model.gguf", Weights(weights.config, tensors))) as model:
        np.testing.assert_allclose(forward(model.weights, IDS), forward(weights, IDS) + bias, atol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"rope": {"scaling": "linear", "factor": 8.0}},
        {
            "rope": {
                "scaling": "yarn",
                "factor": 4.0,
                "original_context": 128,
                "attention_factor": 1.25,
                "beta_fast": 16.0,
            }
        },
        {"rope": {"dim": 32, "base": 5e5}},
        {"activation": "relu2", "embedding_scale": 3.0, "attention_scale": 0.25, "logit_softcap": 30.0},
        {"sliding_window": 16, "sliding_layers": (True, False), "rope": {"local_base": 1e4}},
        {"mhc_streams": 4, "pooling": "last"},
        {"mhc_streams": 2, "head_dim": 48, "rope": {"dim": 48}},
    ],
)
def test_settings_survive_the_way_through_metadata(fields: dict[str, Any]) -> None:
    config = fake_config("ternrun", **({"mhc_streams": 1} | fields))
    again = read_config(write_config(config), config.vocab_size)
    assert replace(again, rope=config.rope) == config
    assert replace(again.rope, attention_factor=1.0) == replace(config.rope, attention_factor=1.0)
    assert again.rope.attention_factor == pytest.approx(config.rope.attention_factor)


def test_a_setting_the_architecture_has_no_key_for_is_not_lost_silently() -> None:
    with pytest.raises(LoadError, match="'qwen2' cannot hold mhc_streams=2"):
        write_config(fake_config("qwen2", mhc_streams=2))


def test_rope_style_and_activation_follow_the_architecture() -> None:
    metadata = write_config(fake_config("llama"))
    assert read_config(metadata, 320).rope.style == "norm"
    bitnet = {k: v for k, v in write_config(fake_config("bitnet-b1.58")).items() if not k.endswith("hidden_activation")}
    config = read_config(bitnet, 320)
    assert (config.activation, config.rope.style) == ("relu2", "neox")
    plain = {k.replace("bitnet-b1.58", "bitnet"): v for k, v in bitnet.items()} | {"general.architecture": "bitnet"}
    assert read_config(plain, 320).activation == "silu"
    assert read_config(plain | {"bitnet.hidden_activation": "relu2"}, 320).activation == "relu2"


def test_gemma3_defaults_are_llama_cpps() -> None:
    keys = {
        "general.architecture": "gemma3", "gemma3.context_length": 32768, "gemma3.embedding_length": 640,
        "gemma3.block_count": 18, "gemma3.feed_forward_length": 2048, "gemma3.attention.head_count": 4,
        "gemma3.attention.head_count_kv": 1, "gemma3.attention.key_length": 256, "gemma3.attention.value_length": 256,
        "gemma3.attention.layer_norm_rms_epsilon": 1e-6, "gemma3.rope.freq_base": 1e6,
        "gemma3.attention.sliding_window": 512,
    }  # fmt: skip
    config = read_config(keys, 1000)
    assert [n for n, slides in enumerate(config.sliding_layers) if not slides] == [5, 11, 17]
    assert (config.rope.local_base, config.rope.base, config.activation) == (1e4, 1e6, "gelu")
    assert config.embedding_scale == pytest.approx(640**0.5)
    assert config.scale == 1 / 16
    largest = read_config(keys | {"gemma3.block_count": 62, "gemma3.embedding_length": 5376,
                                  "gemma3.attention.head_count": 32}, 1000)  # fmt: skip
    assert largest.scale == pytest.approx((5376 / 32) ** -0.5)


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("general.architecture", "gpt2", "architecture 'gpt2' is not supported; these are: llama"),
        ("general.architecture", 7, "general.architecture is missing"),
        ("llama.block_count", "many", "llama.block_count must be a whole number, not 'many'"),
        ("llama.block_count", 10**9, "n_layers must be"),
        ("llama.embedding_length", -4, "dim must be"),
        ("llama.embedding_length", None, "llama.embedding_length is missing"),
        ("llama.attention.head_count", 0, "n_heads must be"),
        ("llama.attention.head_count", np.array([4, 2]), "head_count must be the same in every layer"),
        ("llama.attention.head_count_kv", 3, "cannot share"),
        ("llama.attention.value_length", 32, "value_length must be 64 like the key's"),
        ("llama.attention.layer_norm_rms_epsilon", float("nan"), "must be a finite number, not nan"),
        ("llama.rope.dimension_count", 7, "even"),
        ("llama.rope.freq_base", float("inf"), "finite"),
        ("llama.rope.scaling.type", "longrope", "must be one of none, linear, yarn, not 'longrope'"),
        ("llama.rope.scaling.factor", -2.0, "factor must be"),
        ("llama.expert_count", 8, "llama.expert_count = 8 asks for something not supported"),
        ("llama.attention.causal", False, "causal"),
        ("llama.pooling_type", 4, "pooling_type must be"),
        ("prism.hadamard.version", 1, "rotated"),
    ],
)
def test_hostile_metadata_is_refused_by_name(key: str, value: Any, fault: str) -> None:
    metadata = write_config(fake_config("llama")) | {key: value}
    if value is None:
        del metadata[key]
    with pytest.raises((LoadError, ConfigError)) as error:
        read_config(metadata, 320)
    assert fault in str(error.value)


def change(weights: Weights, name: str, **fields: Any) -> dict[str, Tensor]:
    return dict(weights.tensors) | {name: replace(weights.tensors[name], **fields)}


def test_missing_unused_misshapen_and_mistyped_tensors_are_named() -> None:
    weights = fake_weights("llama", "F32", **SMALL)
    vector = encode("F32", np.ones(128, np.float32))
    cases: list[tuple[dict[str, Tensor], str]] = [
        ({n: t for n, t in weights.tensors.items() if n != "blk.1.ffn_up.weight"}, "'blk.1.ffn_up.weight' is missing"),
        (
            dict(weights.tensors) | {"blk.0.extra": Tensor("blk.0.extra", "F32", (128,), vector)},
            "'blk.0.extra' is not part",
        ),
        (change(weights, "blk.0.attn_k.weight", shape=(128, 64)), "shape [128, 64], its model asks for [64, 128]"),
        (change(weights, "output_norm.weight", type="Q8_0"), "'output_norm.weight' is of type Q8_0"),
        (change(weights, "output_norm.weight", data=vector[:-4]), "bytes"),
        (change(weights, "output_norm.weight", data=encode("F32", np.ones(128, np.float32)) | 0x7F), "not finite"),
    ]
    for tensors, fault in cases:
        with pytest.raises(LoadError) as error:
            assemble(weights.config, tensors)
        assert fault in str(error.value)


def test_half_a_group_of_optional_tensors_is_an_error() -> None:
    for group, names in GROUPS.items():
        arch = {"sub_norm": "bitnet", "qk_norm": "qwen3", "post_norm": "gemma3", "wide_qk_norm": "olmo2"}.get(
            group, "ternrun"
        )
        weights = fake_weights(arch, "F32", extras=(group,), **SMALL)
        last = f"blk.1.{next(reversed(names))}"
        with pytest.raises(LoadError, match=f"'{last}' is missing"):
            assemble(weights.config, {n: t for n, t in weights.tensors.items() if n != last})


def test_i2_s_scale_that_was_stored_upside_down_is_refused() -> None:
    weights = fake_weights("bitnet", "I2_S", **SMALL)
    tensor = weights.tensors["blk.0.ffn_up.weight"]
    data = tensor.data.copy()
    data[-32:] = np.repeat(np.float32(1 / 0.01), 8).view(np.uint8)
    with pytest.raises(LoadError, match="probably stored 1 / scale"):
        assemble(weights.config, change(weights, tensor.name, data=data))


def test_mixing_that_is_not_doubly_stochastic_is_refused() -> None:
    weights = fake_weights("ternrun", "F32", **SMALL)
    with pytest.raises(LoadError, match=r"'blk.0.mhc_attn.weight' does not mix"):
        assemble(weights.config, change(weights, "blk.0.mhc_attn.weight", data=encode("F32", np.ones(24, np.float32))))


def test_vocabulary_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    path = fake_gguf(tmp_path / "m.gguf", fake_weights("llama", "F32", **SMALL), **byte_vocabulary(400))
    with pytest.raises(LoadError, match="400 tokens, the embedding only 260 rows"):
        open_model(path)


def test_rope_factors_travel_as_a_tensor(tmp_path: Path) -> None:
    factors = tuple(np.linspace(1, 32, 32).tolist())
    weights = fake_weights("llama", "F16", rope={"frequency_factors": factors}, **SMALL)
    with open_model(fake_gguf(tmp_path / "m.gguf", weights)) as model:
        assert model.weights.config.rope.frequency_factors == pytest.approx(factors)
        assert "rope_freqs.weight" not in model.weights.tensors
    tensors = [
        *weights.tensors.values(),
        Tensor("rope_freqs.weight", "F32", (5,), encode("F32", np.ones(5, np.float32))),
    ]
    write_gguf(tmp_path / "bad.gguf", write_config(weights.config), tensors)
    with pytest.raises(LoadError, match="frequency factors"):
        open_model(tmp_path / "bad.gguf")
