"""Hugging Face folders and seed-project files of the fake models, written by hand: no library vouches for itself."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.bench.vocabulary import byte_vocabulary
from ternrun.loader.architectures.tensor_names import is_linear
from ternrun.loader.quants.table import decode, trits
from ternrun.runtime.weights import Tensor, Weights

Stored = tuple[str, tuple[int, ...], bytes]  # dtype, shape, bytes

_LAYER = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "attn_sub_norm": "self_attn.attn_sub_norm", "ffn_sub_norm": "mlp.ffn_sub_norm",
}  # fmt: skip
_GEMMA = {
    "ffn_norm": "pre_feedforward_layernorm", "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip
_MODEL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text", "bitnet-b1.58": "bitnet"}
ACTIVATIONS = {"silu": "silu", "gelu": "gelu_pytorch_tanh", "relu2": "relu2"}


def write_safetensors(path: Path, tensors: Mapping[str, Stored]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def hf_name(name: str, architecture: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in _MODEL:
        return f"{_MODEL[stem]}.{kind}"
    _, layer, role = stem.split(".")
    names = _LAYER | _GEMMA if architecture == "gemma3" else _LAYER
    hf = f"{names[role.removesuffix('_norm_in')]}.norm" if role.endswith("_norm_in") else names[role]
    return f"model.layers.{layer}.{hf}.{kind}"


def hf_tensors(weights: Weights, *, divide: bool = True, unpacked: bool = False) -> dict[str, Stored]:
    """Checkpoint tensors; ternary linears as packed bytes with a weight_scale (or unpacked to bf16)."""
    stored: dict[str, Stored] = {}
    for tensor in weights.tensors.values():
        name = hf_name(tensor.name, weights.config.architecture)
        if is_linear(tensor.name) and tensor.type not in ("F32", "F16", "BF16"):
            codes, scales = trits(tensor.type, tensor.data, tensor.shape)
            scale = float(scales[0, 0]) * tensor.scale
            stored[name] = ("BF16", codes.shape, bf16(codes)) if unpacked else ("U8", *pack(codes))
            stored[f"{name}_scale"] = ("F32", (1,), np.float32(1 / scale if divide else scale).tobytes())
        elif weights.config.architecture == "gemma3" and "norm" in name and not name.endswith("proj.norm.weight"):
            stored[name] = ("F32", tensor.shape, (decode(tensor.type, tensor.data, tensor.shape) - 1).tobytes())
        else:
            stored[name] = (tensor.type, tensor.shape, tensor.data.tobytes())
    return stored


def pack(codes: NDArray[np.int8]) -> tuple[tuple[int, int], bytes]:
    """Four quarter-matrices in one byte, the first in the lowest bits (transformers' pack_weights)."""
    quarter = codes.shape[0] // 4
    packed = np.zeros((quarter, codes.shape[1]), np.uint8)
    for i in range(4):
        packed |= (codes[i * quarter : (i + 1) * quarter] + 1).astype(np.uint8) << (2 * i)
    return packed.shape, packed.tobytes()


def bf16(values: NDArray[Any]) -> bytes:
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()


def hf_config(weights: Weights, **changes: Any) -> dict[str, Any]:
    c = weights.config
    config: dict[str, Any] = {
        "model_type": MODEL_TYPES[c.architecture], "hidden_size": c.dim, "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads, "num_key_value_heads": c.n_kv_heads, "head_dim": c.head_dim,
        "intermediate_size": c.ffn_dim, "rms_norm_eps": c.norm_eps, "rope_theta": c.rope.base,
        "max_position_embeddings": c.context_length, "vocab_size": c.vocab_size,
        "tie_word_embeddings": "output.weight" not in weights.tensors, "hidden_act": ACTIVATIONS[c.activation],
    }  # fmt: skip
    if c.architecture == "gemma3":
        config |= {
            "hidden_activation": config.pop("hidden_act"), "sliding_window": c.sliding_window,
            "layer_types": ["sliding_attention" if s else "full_attention" for s in c.sliding_layers],
            "query_pre_attn_scalar": c.head_dim, "rope_local_base_freq": c.rope.local_base,
        }  # fmt: skip
    return config | changes


def fake_hf(folder: Path, weights: Weights, tensors: Mapping[str, Stored] | None = None, **config: Any) -> Path:
    """A folder with config.json, model.safetensors and a byte tokenizer."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hf_config(weights, **config)))
    write_safetensors(folder / "model.safetensors", hf_tensors(weights) if tensors is None else tensors)
    return tokenizer_files(folder, weights.config.vocab_size)


def tokenizer_files(folder: Path, vocab_size: int) -> Path:
    """A byte tokenizer in tokenizer.json and tokenizer_config.json."""
    vocab = byte_vocabulary(vocab_size)["tokenizer.ggml.tokens"]
    special = [{"id": i, "content": vocab[i], "special": True, "normalized": False, "single_word": False,
                "lstrip": False, "rstrip": False} for i in (256, 257)]  # fmt: skip
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(vocab[:258])}, "merges": []},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": vocab[256], "eos_token": vocab[257]}))
    return folder


def write_seed(path: Path, weights: Weights, streams: NDArray[np.float32] | None = None) -> Path:
    """The seed project's GGUF dialect, with its `.mhc` file of one row of float32 logits per sublayer in `streams`."""
    c = weights.config
    renames = {"attn_q": "attention.wq", "attn_k": "attention.wk", "attn_v": "attention.wv",
               "attn_output": "attention.wo",
               "ffn_gate": "ffn.w_gate", "ffn_up": "ffn.w_up", "ffn_down": "ffn.w_down", "attn_norm": "norm_attn",
               "ffn_norm": "norm_ffn"}  # fmt: skip
    whole = {"token_embd": "tok_embed", "output_norm": "norm_final", "output": "lm_head"}
    keys: dict[str, int | float | str] = {
        "general.architecture": "nanochat-ternary", "nanochat.dim": c.dim, "nanochat.n_layers": c.n_layers,
        "nanochat.n_heads": c.n_heads, "nanochat.n_kv_heads": c.n_kv_heads, "nanochat.vocab_size": c.vocab_size,
        "nanochat.max_seq_len": c.context_length, "nanochat.group_size": 128, "nanochat.mhc_n_streams": c.mhc_streams,
        "nanochat.weight_tied": int("output.weight" not in weights.tensors), "nanochat.rope_theta": c.rope.base,
        "nanochat.ffn_mult": c.ffn_dim / c.dim,
    }  # fmt: skip
    head, body, offset = [], [], 0
    tensors: list[Tensor] = [t for t in weights.tensors.values() if ".mhc_" not in t.name]
    for tensor in tensors:
        stem = tensor.name.removesuffix(".weight")
        layer = stem.split(".")
        name = (whole[stem] if stem in whole else f"blocks.{layer[1]}.{renames[layer[2]]}") + ".weight"
        raw = tensor.data.tobytes()
        dims = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        kind = {"F32": 0, "F16": 1, "Q1_58": 100}[tensor.type]
        head.append(_text(name) + dims + struct.pack("<IQ", kind, offset))
        raw += bytes(-len(raw) % 32)
        body.append(raw)
        offset += len(raw)
    start = (
        b"GUGF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(map(_entry, keys.items())) + b"".join(head)
    )
    path.write_bytes(start + bytes(-len(start) % 32) + b"".join(body))
    if streams is not None:
        header = struct.pack("<4I", 0x6D484321, 1, len(streams), c.mhc_streams)
        path.with_suffix(".mhc").write_bytes(header + streams.astype("<f4").tobytes())
    return path


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _entry(item: tuple[str, int | float | str]) -> bytes:
    key, value = item
    if isinstance(value, str):
        return _text(key) + struct.pack("<I", 8) + _text(value)
    return _text(key) + (struct.pack("<If", 6, value) if isinstance(value, float) else struct.pack("<II", 4, value))
