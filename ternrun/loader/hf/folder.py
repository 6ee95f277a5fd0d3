"""A Hugging Face model folder (config.json, safetensors) as a configuration and tensors under GGUF's names."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ternrun.errors import LoadError
from ternrun.loader.architectures.assemble import is_linear, vector
from ternrun.loader.hf.bitnet_weights import FLOATS, TernaryRule, ternary_tensor
from ternrun.loader.hf.config import architecture_of, read_hf_config, text_config
from ternrun.loader.hf.safetensors import RawTensor, open_folder
from ternrun.loader.hf.sentence_pooling import engine_pooling
from ternrun.loader.json_files import read_json
from ternrun.loader.quants.table import encode
from ternrun.runtime.config import ModelConfig
from ternrun.runtime.weights import Tensor

_PREFIXES = ("language_model.model.", "model.language_model.", "language_model.", "model.")
_MODEL = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
_PROJECTIONS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
_LAYER = _PROJECTIONS | {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.attn_sub_norm": "attn_sub_norm", "self_attn.inner_attn_ln": "attn_sub_norm",
    "mlp.ffn_sub_norm": "ffn_sub_norm", "mlp.ffn_layernorm": "ffn_sub_norm",
}  # fmt: skip
_LAYER |= {f"{hf}.{norm}": f"{name}_norm_in" for hf, name in _PROJECTIONS.items() for norm in ("norm", "rms_norm")}
_GEMMA = {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
_VISION = ("vision_tower.", "model.vision_tower.", "multi_modal_projector.", "model.multi_modal_projector.")
_IGNORED = (".rotary_emb.inv_freq", ".masked_bias")  # constants that old checkpoints carry


class Checkpoint(NamedTuple):
    """A folder's model: tensors by GGUF name, config.json and notes for people, bytes of weights on disk."""

    config: ModelConfig
    tensors: dict[str, Tensor]
    stated: dict[str, Any]
    size: int
    notes: str


def open_hf(folder: Path) -> Checkpoint:
    """Raises LoadError or ConfigError naming the fault."""
    whole = read_json(folder / "config.json")
    config = text_config(whole)
    name = architecture_of(config)
    tied = bool(whole.get("tie_word_embeddings", config.get("tie_word_embeddings")))
    stored = open_folder(folder)
    seeing = {n for n in stored if name == "gemma3" and n.startswith(_VISION)}
    raw = _renamed({n: tensor for n, tensor in stored.items() if n not in seeing}, name, tied=tied)
    embedding = raw.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise LoadError("tensor 'model.embed_tokens.weight' is missing or not a matrix")
    rule = TernaryRule(whole.get("quantization_config"), name)
    with ThreadPoolExecutor() as pool:  # numpy lets go of the lock while it works through masters
        tensors = list(pool.map(lambda item: _convert(item[0], item[1], raw, rule, name), raw.items()))
    size = sum(t.data.size for t in raw.values())
    model = replace(read_hf_config(config, embedding.shape[0]), pooling=engine_pooling(folder))
    notes = f"text only: {len(seeing)} tensors that are for pictures are left out" if seeing else ""
    return Checkpoint(model, {t.name: t for t in tensors if t is not None}, whole, size, notes)


def _renamed(raw: Mapping[str, RawTensor], architecture: str, *, tied: bool) -> dict[str, RawTensor]:
    renamed: dict[str, RawTensor] = {}
    for tensor in raw.values():
        if tensor.name.endswith(_IGNORED) or (tied and tensor.name.endswith("lm_head.weight")):
            continue
        name = gguf_name(tensor.name, architecture)
        if name in renamed:
            raise LoadError(f"tensors {renamed[name].name[:80]!r} and {tensor.name[:80]!r} both stand for {name}")
        renamed[name] = tensor
    return renamed


def gguf_name(name: str, architecture: str) -> str:
    """GGUF's name for a tensor of a checkpoint; the name itself where it has none."""
    prefix = next((p for p in _PREFIXES if name.startswith(p)), "")
    stem, dot, kind = name.removeprefix(prefix).rpartition(".")
    if stem in _MODEL:
        return f"{_MODEL[stem]}.{kind}"
    layers = _LAYER | _GEMMA if architecture == "gemma3" else _LAYER
    parts = stem.split(".", 2)
    if len(parts) == 3 and parts[0] == "layers" and parts[2] in layers:
        return f"blk.{parts[1]}.{layers[parts[2]]}{dot}{kind}"
    return name


def _convert(
    name: str, tensor: RawTensor, raw: Mapping[str, RawTensor], rule: TernaryRule, architecture: str
) -> Tensor | None:
    """The tensor in one of ternrun's encodings; None for a scale, which goes into its weight."""
    if name.endswith(".weight_scale"):
        return None
    scale = raw.get(f"{name}_scale")
    if is_linear(name) and len(tensor.shape) == 2 and (tensor.dtype == "U8" or rule.applies):
        return ternary_tensor(name, tensor, scale, rule)
    if scale is not None or tensor.dtype not in FLOATS:
        raise LoadError(f"tensor {tensor.name[:80]!r} of dtype {tensor.dtype} is not of a form that is supported")
    converted = Tensor(name, tensor.dtype, tensor.shape, tensor.data)
    if architecture == "gemma3" and "norm" in name and len(tensor.shape) == 1 and not name.endswith("_norm_in.weight"):
        return replace(converted, type="F32", data=encode("F32", vector(converted) + 1))  # stored as w - 1
    return converted
