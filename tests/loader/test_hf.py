"""Hugging Face folders: every form BitNet's weights come in, and each architecture's config.json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ternrun.errors import LoadError, UsageError
from ternrun.loader.architectures.hf_config import read_hf_config
from ternrun.loader.architectures.table import text_config
from ternrun.loader.model import open_model
from ternrun.loader.quants.table import decode, encode, trits
from ternrun.runtime.weights import Weights
from tests.fakes import fake_weights
from tests.fakes_hf import MODEL_TYPES, Stored, bf16, fake_hf, hf_config, hf_tensors
from tests.reference import forward, rope_tables

SMALL: dict[str, Any] = {
    "dim": 128, "n_heads": 2, "n_kv_heads": 1, "ffn_dim": 128, "n_layers": 2, "vocab_size": 260,
    "rope": {"style": "neox"},
}  # fmt: skip
IDS = [3, 1, 200, 7, 7, 90]
BITNET = {"quant_method": "bitnet", "modules_to_not_convert": None}


@pytest.mark.parametrize("arch", MODEL_TYPES)
@pytest.mark.parametrize("tied", [True, False])
def test_float_checkpoints_give_the_same_logits(arch: str, tied: bool, tmp_path: Path) -> None:
    if arch == "bitnet-b1.58":
        weights = fake_weights(arch, "I2_S", tied=tied, **SMALL)
        folder = fake_hf(tmp_path / "m", weights, quantization_config=BITNET)
    else:
        weights = fake_weights(arch, "BF16", tied=tied, **SMALL)
        folder = fake_hf(tmp_path / "m", weights)
    with open_model(folder) as model:
        assert model.weights.config == weights.config
        np.testing.assert_allclose(forward(model.weights, IDS), forward(weights, IDS), atol=1e-5)
        assert model.name == "m"
        assert model.size > 0


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_of_the_folder_stands_for_it(name: str, tmp_path: Path) -> None:
    fake_hf(tmp_path / "m", fake_weights("qwen3", "F16", **SMALL))
    with open_model(tmp_path / "m" / name) as model:
        assert model.path == tmp_path / "m"


@pytest.mark.parametrize("linear_class", ["bitlinear", "autobitlinear"])
@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("arch", ["llama", "bitnet-b1.58", "qwen3"])
def test_packed_and_unpacked_ternary_weights_with_their_scale(
    arch: str, unpacked: bool, linear_class: str, tmp_path: Path
) -> None:
    weights = fake_weights(arch, "I2_S", **SMALL)
    tensors = hf_tensors(weights, divide=linear_class == "bitlinear", unpacked=unpacked)
    quantization = BITNET | {"linear_class": linear_class, "quantization_mode": "offline"}
    with open_model(fake_hf(tmp_path / "m", weights, tensors, quantization_config=quantization)) as model:
        for name, tensor in model.weights.tensors.items():
            if tensor.type == "HF_PACKED":
                codes, scales = trits("I2_S", weights.tensors[name].data, tensor.shape)
                assert np.array_equal(trits(tensor.type, tensor.data, tensor.shape)[0], codes)
                assert tensor.scale == pytest.approx(float(scales[0, 0]), rel=1e-7)
        assert sum(t.type == "HF_PACKED" for t in model.weights.tensors.values()) == 14


def masters(weights: Weights, rng: np.random.Generator, dtype: str = "BF16") -> dict[str, Stored]:
    tensors = hf_tensors(weights)
    for name, (stored, shape, _) in list(tensors.items()):
        if stored == "U8":
            size = (4 * shape[0], shape[1])
            tensors[name] = (dtype, size, encode(dtype, rng.standard_normal(size).astype(np.float32) * 0.02).tobytes())
            del tensors[f"{name}_scale"]
    return tensors


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_masters_are_rounded_by_their_mean_magnitude(dtype: str, tmp_path: Path) -> None:
    weights = fake_weights("bitnet-b1.58", "I2_S", **SMALL)
    tensors = masters(weights, np.random.default_rng(3), dtype)
    quantization = BITNET | {"linear_class": "autobitlinear", "quantization_mode": "online"}
    with open_model(fake_hf(tmp_path / "m", weights, tensors, quantization_config=quantization)) as model:
        tensor = model.weights.tensors["blk.1.ffn_down.weight"]
        _, shape, data = tensors["model.layers.1.mlp.down_proj.weight"]
        master = decode(dtype, np.frombuffer(data, np.uint8), shape)
        mean = np.abs(master).mean()
        assert tensor.scale == pytest.approx(float(mean), rel=1e-6)
        codes = trits(tensor.type, tensor.data, tensor.shape)[0]
        assert np.array_equal(codes, np.clip(np.rint(master / mean), -1, 1))


def test_one_bit_llm_checkpoints_are_bitnets_of_llamas_type(tmp_path: Path) -> None:
    weights = fake_weights("bitnet-b1.58", "I2_S", activation="silu", **SMALL)
    tensors = masters(weights, np.random.default_rng(3))
    renames = {"attn_sub_norm": "inner_attn_ln", "ffn_sub_norm": "ffn_layernorm"}
    for old, new in renames.items():
        tensors = {name.replace(old, new): stored for name, stored in tensors.items()}
    folder = fake_hf(tmp_path / "m", weights, tensors, model_type="llama", architectures=["BitnetForCausalLM"])
    with open_model(folder) as model:
        assert (model.weights.config.architecture, model.weights.config.activation) == ("bitnet", "silu")
        assert model.weights.tensors["blk.0.attn_q.weight"].type == "HF_PACKED"


def test_embedding_models_keep_their_projection_norms_and_pooling(tmp_path: Path) -> None:
    for arch in ("qwen3", "gemma3"):
        weights = fake_weights(arch, "F16", extras=("norm_in",), **SMALL)
        folder = fake_hf(tmp_path / arch, weights)
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_lasttoken": True}))
        with open_model(folder) as model:
            assert model.weights.config.pooling == "last"
            np.testing.assert_allclose(forward(model.weights, IDS), forward(weights, IDS), atol=1e-4)


POOLING: tuple[tuple[dict[str, Any], str], ...] = (  # both spellings of sentence-transformers
    ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
    ({"pooling_mode_cls_token": True}, "cls"),
    ({"pooling_mode": "lasttoken"}, "last"),
    ({"pooling_mode": ["cls"]}, "cls"),
    ({"pooling_mode": ["cls", "mean"]}, "none"),
    ({"pooling_mode_max_tokens": True}, "none"),
    ({"pooling_mode": "weightedmean"}, "none"),
    ({"pooling_mode": 1}, "none"),
    ({}, "none"),
)


def test_pooling_is_what_the_folder_states_or_none(tmp_path: Path) -> None:
    folder = fake_hf(tmp_path / "m", fake_weights("qwen3", "F16", **SMALL))
    (folder / "1_Pooling").mkdir()
    for stated, pooling in POOLING:
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(stated))
        with open_model(folder) as model:
            assert model.weights.config.pooling == pooling, stated


def config_of(arch: str, **changes: Any) -> dict[str, Any]:
    return hf_config(fake_weights(arch, "F16", **SMALL), **changes)


def inverse_frequencies(config: dict[str, Any]) -> tuple[np.ndarray[Any, Any], float]:
    """As the reference turns them, by the angle at position 1."""
    rope = read_hf_config(config, 260).rope
    cos, sin = rope_tables(rope, 2, sliding=False)
    return np.arctan2(sin[1, 0], cos[1, 0]), float(np.hypot(cos[1, 0, 0], sin[1, 0, 0]))


PLAIN = 1e4 ** (-np.arange(0, 64, 2) / 64)


def test_linear_scaling_divides_positions() -> None:
    for key in ("rope_scaling", "rope_parameters"):
        found, _ = inverse_frequencies(config_of("llama", **{key: {"rope_type": "linear", "factor": 4.0}}))
        np.testing.assert_allclose(found, PLAIN / 4, rtol=1e-5)


def test_llama3_scaling_as_transformers_computes_it() -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 256}  # fmt: skip
    found, magnitude = inverse_frequencies(config_of("llama", rope_scaling=scaling))
    wanted = []
    for frequency in PLAIN:  # _compute_llama3_parameters, one by one
        wave = 2 * math.pi / frequency
        smooth = (256 / wave - 1.0) / (4.0 - 1.0)
        blend = (1 - smooth) * frequency / 8 + smooth * frequency
        wanted.append(frequency / 8 if wave > 256 / 1.0 else frequency if wave < 256 / 4.0 else blend)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert magnitude == pytest.approx(1)


def test_yarn_scaling_as_transformers_computes_it() -> None:
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    found, magnitude = inverse_frequencies(config_of("qwen3", rope_scaling=scaling))

    def pair(turns: float) -> float:
        return 64 * math.log(128 / (turns * 2 * math.pi)) / (2 * math.log(1e4))

    low, high = max(math.floor(pair(32)), 0), min(math.ceil(pair(1)), 63)
    keep = 1 - np.clip((np.arange(32) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(found, PLAIN / 4 * (1 - keep) + PLAIN * keep, rtol=1e-5)
    assert magnitude == pytest.approx(0.1 * math.log(4) + 1)


def test_gemma3_defaults_of_larger_models() -> None:
    """What Gemma 3 4B and 12B state is little; the rest is Gemma3TextConfig's."""
    said = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    said |= {"model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    four = read_hf_config(text_config({"model_type": "gemma3", "text_config": said, "vision_config": {}}), 262208)
    assert (four.n_heads, four.n_kv_heads, four.head_dim, four.context_length) == (8, 4, 256, 131072)
    assert (four.rope.factor, four.rope.base, four.rope.local_base, four.sliding_window) == (8.0, 1e6, 1e4, 1024)
    assert four.attention_scale == 0.0
    twelve = read_hf_config(said | {"num_attention_heads": 16, "num_key_value_heads": 8, "sliding_window": None}, 9)
    assert (twelve.n_heads, twelve.n_kv_heads, twelve.head_dim, twelve.sliding_window) == (16, 8, 256, 4096)


@pytest.mark.parametrize(("text", "rest"), [("language_model.", ""), ("model.language_model.", "model.")])
def test_gemma3_without_what_it_sees_with(text: str, rest: str, tmp_path: Path) -> None:
    weights = fake_weights("gemma3", "F32", **SMALL)
    one = ("F32", (1, 1), bytes(4))
    tensors = {text + name.removeprefix("model." if rest else ""): t for name, t in hf_tensors(weights).items()}
    tensors[f"{rest}vision_tower.vision_model.embeddings.position_embedding.weight"] = one
    tensors[f"{rest}multi_modal_projector.mm_input_projection_weight"] = one
    folder = fake_hf(tmp_path / "m", weights, tensors)
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": hf_config(weights)}))
    with open_model(folder) as model:
        assert model.metadata["safetensors.notes"] == "text only: 2 tensors that are for pictures are left out"
        np.testing.assert_allclose(forward(model.weights, IDS), forward(weights, IDS), atol=1e-5)


@pytest.mark.parametrize("case", ["an equal head", "a head of its own", "only the head", "no head"])
def test_the_stored_head_counts_and_not_what_the_config_says_of_it(case: str, tmp_path: Path) -> None:
    weights = fake_weights("qwen2", "F32", tied=False, **SMALL)
    tensors = hf_tensors(weights)
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    if case == "an equal head":
        tensors[head] = tensors[embedding]
    elif case == "only the head":
        tensors[head] = tensors.pop(embedding)
    elif case == "no head":
        del tensors[head]
    folder = fake_hf(tmp_path / "m", weights, tensors, tie_word_embeddings=case != "no head")
    with open_model(folder) as model:
        found = model.weights
    assert ("output.weight" in found.tensors) == (case == "a head of its own")
    if case == "a head of its own":
        np.testing.assert_allclose(forward(found, IDS), forward(weights, IDS), atol=1e-5)


def test_sliding_layers_of_gemma3_may_be_scaled() -> None:
    parameters = {"full_attention": {"rope_type": "default", "rope_theta": 1e6},
                  "sliding_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}  # fmt: skip
    config = config_of("gemma3", rope_parameters=parameters)
    assert read_hf_config(config, 260).rope.local_factor == 4.0
    parameters["sliding_attention"]["rope_type"] = "yarn"
    with pytest.raises(LoadError, match="of sliding layers is not supported"):
        read_hf_config(config, 260)


def test_gemma3_nested_parameters() -> None:
    parameters = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                  "sliding_attention": {"rope_type": "default", "rope_theta": 2e4}}  # fmt: skip
    config = config_of("gemma3", rope_parameters=parameters)
    del config["rope_theta"], config["rope_local_base_freq"]
    rope = read_hf_config(config, 260).rope
    assert (rope.base, rope.local_base, rope.scaling, rope.factor) == (1e6, 2e4, "linear", 8.0)
    old = config_of("gemma3", sliding_window_pattern=6, num_hidden_layers=12, query_pre_attn_scalar=256)
    del old["layer_types"]
    model = read_hf_config(old, 260)
    assert [n for n, slides in enumerate(model.sliding_layers) if not slides] == [5, 11]
    assert model.scale == 1 / 16


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is not supported; these are: llama"),
        ({"model_type": ["llama"]}, "model_type"),
        ({"hidden_size": "big"}, "config.json.hidden_size must be a whole number"),
        ({"hidden_size": None}, "config.json.hidden_size is missing"),
        ({"num_hidden_layers": 10**12}, "n_layers must be"),
        ({"num_attention_heads": 0}, "n_heads must be"),
        ({"hidden_act": "tanh"}, "hidden_act must be one of silu"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope scaling 'longrope' is not supported"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "factor is missing"),
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0}},
            "llama3",
        ),
        ({"rope_scaling": {"type": "yarn", "factor": -1}}, "factor must be positive"),
        ({"rope_scaling": [1]}, "rope_scaling must be a table"),
        ({"rope_theta": 1e400}, "finite"),
        ({"use_sliding_window": True, "sliding_window": 8}, "use_sliding_window"),
        ({"quantization_config": {"quant_method": "gptq"}}, "is quantized by GPTQ"),
        ({"text_config": 3, "model_type": "gemma3"}, "model_type 'gemma3' is not supported"),
    ],
)
def test_config_faults_are_named(changes: dict[str, Any], fault: str, tmp_path: Path) -> None:
    weights = fake_weights("llama", "F16", **SMALL)
    with pytest.raises(LoadError) as error:
        open_model(fake_hf(tmp_path / "m", weights, **changes))
    assert fault in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_tensor_faults_are_named(tmp_path: Path) -> None:
    weights = fake_weights("llama", "I2_S", **SMALL)
    whole = hf_tensors(weights)
    name = "model.layers.0.mlp.up_proj.weight"
    _, shape, data = whole[name]
    codes = trits("I2_S", weights.tensors["blk.0.ffn_up.weight"].data, (128, 128))[0]
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({f"{name}_scale": None}, {}, f"'{name}_scale' is missing"),
        ({f"{name}_scale": ("F32", (1,), np.float32(0).tobytes())}, {}, "impossible scale 0"),
        ({f"{name}_scale": ("F32", (2,), bytes(8))}, {}, "is not one number but F32 [2]"),
        ({name: ("I8", shape, data)}, {}, "dtype I8 is not of a form"),
        ({name: ("BF16", (128, 128), bf16(codes * 2))}, {}, "said to hold -1, 0 and 1 but holds other values"),
        ({name: None}, {}, "'blk.0.ffn_up.weight' is missing"),
        ({"model.layers.0.mlp.experts.weight": ("F32", (1,), bytes(4))}, {}, "is not part of a llama model"),
        ({"model.embed_tokens.weight": None}, {}, "'model.embed_tokens.weight' is missing"),
        ({"embed_tokens.weight": ("F16", (260, 128), bytes(2 * 260 * 128))}, {}, "both stand for token_embd.weight"),
        ({name: ("BF16", (126, 128), bytes(2 * 126 * 128))}, {"quantization_mode": "online"}, "126 rows"),
        (
            {name: ("BF16", (128, 128), bf16(np.full((128, 128), np.inf)))},
            {"quantization_mode": "online"},
            "weights that are not finite",
        ),
    ]
    for i, (changes, quantization, fault) in enumerate(cases):
        tensors = {n: s for n, s in (whole | changes).items() if s is not None}
        folder = fake_hf(tmp_path / str(i), weights, tensors, quantization_config=BITNET | quantization)
        with pytest.raises(LoadError) as error:
            open_model(folder)
        assert fault in str(error.value)


def test_constants_of_old_checkpoints_are_passed_over(tmp_path: Path) -> None:
    weights = fake_weights("llama", "F16", **SMALL)
    tensors = hf_tensors(weights) | {
        "model.layers.0.self_attn.rotary_emb.inv_freq": (
            "F32",
            (32,),
            encode("F32", np.ones(32, np.float32)).tobytes(),
        ),
        "lm_head.weight": hf_tensors(weights)["model.embed_tokens.weight"],
    }
    with open_model(fake_hf(tmp_path / "m", weights, tensors)) as model:
        assert "output.weight" not in model.weights.tensors


def test_broken_json_and_foreign_options(tmp_path: Path) -> None:
    folder = fake_hf(tmp_path / "m", fake_weights("llama", "F16", **SMALL))
    with pytest.raises(UsageError, match="states its own pre-tokenizer"):
        open_model(folder, pre="qwen2")
    for text in ("{", "[]", '{"a": 1, "a": 2}', "\xff"):
        (folder / "config.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(LoadError, match=r"config\.json is not"):
            open_model(folder)
