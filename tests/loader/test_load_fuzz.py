"""Models whose metadata and tensor table are well-formed but lie: wrong values, types, shapes, names and bytes."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from ternrun.errors import ConfigError, LoadError
from ternrun.loader.architectures.hf_config import read_hf_config
from ternrun.loader.architectures.table import hf_architecture, text_config
from ternrun.loader.gguf.file import GGUFFile, GGUFTensor, open_gguf
from ternrun.loader.hf.bitnet_weights import TernaryRule
from ternrun.loader.model import gguf_weights
from ternrun.runtime.encodings import ENCODINGS
from tests.fakes import fake_gguf, fake_weights
from tests.fakes_hf import hf_config, write_seed
from tests.fuzz.mutate import EDGES, mutate

ROUNDS = 1500
SMALL = {"dim": 128, "n_heads": 2, "n_kv_heads": 1, "ffn_dim": 128, "n_layers": 2, "vocab_size": 260}
VALUES: list[Any] = [
    *EDGES, -1, -(2**31), 0.0, -1.5, 1e-300, 1e300, float("nan"), float("inf"), "", "yarn", "relu2", "\0" * 9, True,
    False, np.array([], np.int32), np.array([1, 2]), np.array([2.0, 2.0]), np.array([True, False]),
    np.zeros(1000, np.uint8), ["a", "b"], [], None,
]  # fmt: skip
KEYS = [
    "rope.scaling.type", "rope.scaling.factor", "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_log_multiplier",
    "rope.scaling.original_context_length", "rope.scaling.attn_factor", "rope.scale_linear", "rope.freq_base_swa",
    "attention.sliding_window", "attention.sliding_window_pattern", "attention.scale", "embedding_scale", "mhc_streams",
    "pooling_type", "final_logit_softcapping", "expert_count", "logit_scale", "hidden_activation",
]  # fmt: skip


def lie_in_metadata(metadata: dict[str, Any], rng: Random, prefix: str) -> None:
    key = rng.choice([*metadata, *(f"{prefix}.{key}" for key in KEYS)])
    if rng.random() < 0.15:
        metadata.pop(key, None)
    else:
        metadata[key] = rng.choice(VALUES)


def lie_in_tensors(tensors: dict[str, GGUFTensor], rng: Random) -> None:
    name = rng.choice(list(tensors))
    tensor = tensors.pop(name)
    kind, shape, data = tensor.type, tensor.shape, tensor.data
    match rng.randrange(7):
        case 0:
            return
        case 1:
            name = rng.choice(
                [*tensors, "rope_freqs.weight", "blk.0.attn_q.scale", "blk.9.attn_q.weight", "x" * 500, name]
            )
        case 2:
            shape = rng.choice([shape[::-1], (*shape, 1), shape[:1], (0,), (1, 1), (2**40, 2**40)])
        case 3:
            kind = rng.choice([*ENCODINGS, "TL1", "MXFP4"])
        case 4:
            data = data[: rng.randrange(data.size + 1)]
        case 5:
            data = np.frombuffer(mutate(data[:4096].tobytes(), rng), np.uint8)
        case 6:
            data = np.full(data.size, rng.choice([0, 0x7F, 0xFF]), np.uint8)
    tensors[name] = GGUFTensor(name, kind, shape, data, f"m.gguf: tensor {name[:20]!r}")


def make(arch: str, path: Path) -> GGUFFile:
    if arch == "nanochat-ternary":
        weights = fake_weights(arch, "Q1_58", head="F32", **SMALL)
        return open_gguf(write_seed(path, weights, np.zeros((4, 9), np.float32)))
    rope = {"frequency_factors": (1.5,) * 32} if arch == "llama" else {}
    return open_gguf(fake_gguf(path, fake_weights(arch, "I2_S", rope=rope, **SMALL)))


@pytest.mark.parametrize("arch", ["llama", "gemma3", "ternrun", "bitnet-b1.58", "nanochat-ternary"])
def test_lies_are_refused_or_do_no_harm(arch: str, tmp_path: Path) -> None:
    whole = make(arch, tmp_path / "m.gguf")
    rng, prefix = Random(arch), arch.removesuffix("-ternary")
    faults: list[str] = []
    slowest = 0.0
    for _ in range(ROUNDS):
        metadata, tensors = dict(whole.metadata), dict(whole.tensors)
        for _ in range(rng.choice((1, 1, 2, 3))):
            if rng.random() < 0.6:
                lie_in_metadata(metadata, rng, prefix)
            else:
                lie_in_tensors(tensors, rng)
        start = time.process_time()
        try:
            loaded = gguf_weights(GGUFFile(3, metadata, tensors, whole.size, whole.paths))
        except (LoadError, ConfigError) as e:
            faults.append(str(e))
        else:
            sound(loaded.tensors)
        slowest = max(slowest, time.process_time() - start)
    assert len(faults) > ROUNDS // 2
    assert len(set(faults)) > 100  # not one check that stops everything
    assert all(0 < len(fault) < 400 for fault in faults)
    assert slowest < 1


HF_VALUES: list[Any] = [
    *EDGES, -1, 10**400, -(10**400), 0.0, 0.5, -2.0, 1e-300, 1e300, float("nan"), float("inf"), "", "yarn", "llama3",
    "linear", "gemma3", "gemma3_text", "bitnet", "relu2", True, False, None, [], {}, ["sliding_attention"] * 2, [[[]]],
    {"rope_type": "yarn", "factor": 4.0}, {"type": "llama3"}, {"full_attention": {}, "sliding_attention": []},
    {"quant_method": "bitnet"}, {"quant_method": []},
]  # fmt: skip
SCALINGS: list[dict[str, Any]] = [
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "mscale": 1.0, "mscale_all_dim": 1.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 64, "rope_theta": 1e4, "partial_rotary_factor": 0.5},
]  # fmt: skip


@pytest.mark.parametrize("arch", ["llama", "gemma3", "bitnet-b1.58"])
def test_lies_in_config_json_are_refused_or_do_no_harm(arch: str) -> None:
    whole = hf_config(fake_weights(arch, "F32", **SMALL)) | {"quantization_config": {"quant_method": "bitnet"}}
    rng = Random(arch)
    faults: list[str] = []
    for _ in range(ROUNDS):
        config = dict(whole)
        scaling = dict(rng.choice(SCALINGS))
        if rng.random() < 0.5:
            config["rope_scaling"] = scaling
            scaling[rng.choice(list(scaling))] = rng.choice(HF_VALUES)
        for _ in range(rng.choice((0, 1, 2))):
            key = rng.choice([*whole, "rope_parameters", "text_config", "partial_rotary_factor", "architectures"])
            config[key] = rng.choice(HF_VALUES)
        try:
            text = text_config(config)
            TernaryRule(config["quantization_config"], masters=hf_architecture(text).ternary)
            read_hf_config(text, 260)
        except (LoadError, ConfigError) as e:
            faults.append(str(e))
    assert len(faults) > ROUNDS // 3
    assert len(set(faults)) > 60
    assert all(0 < len(fault) < 400 for fault in faults)


def sound(tensors: Any) -> None:
    for name, tensor in tensors.items():
        assert tensor.name == name
        assert tensor.type in ENCODINGS
        assert np.isfinite(tensor.scale)
