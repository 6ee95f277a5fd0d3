"""A Hugging Face model folder (config.json, safetensors) as a configuration and tensors under GGUF's names."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ternrun.errors import LoadError
from ternrun.loader.architectures.architecture import Architecture
from ternrun.loader.architectures.assemble import vector
from ternrun.loader.architectures.hf_config import read_hf_config
from ternrun.loader.architectures.table import hf_architecture, text_config
from ternrun.loader.architectures.tensor_names import gguf_name, is_linear
from ternrun.loader.hf.bitnet_weights import FLOATS, TernaryRule, ternary_tensor
from ternrun.loader.hf.safetensors import RawTensor, open_folder
from ternrun.loader.hf.sentence_pooling import engine_pooling
from ternrun.loader.json_files import read_json
from ternrun.loader.quants.table import encode
from ternrun.runtime.config import ModelConfig
from ternrun.runtime.weights import Tensor

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
    """Read and rename all tensors of a model folder. Raises LoadError or ConfigError naming the fault."""
    whole = read_json(folder / "config.json")
    config = text_config(whole)
    row = hf_architecture(config)
    tied = bool(whole.get("tie_word_embeddings", config.get("tie_word_embeddings")))
    stored = open_folder(folder)
    seeing = {n for n in stored if row.multimodal_type and n.startswith(_VISION)}
    raw = _renamed({n: tensor for n, tensor in stored.items() if n not in seeing}, row)
    _settle_head(raw, tied=tied)
    embedding = raw.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise LoadError("tensor 'model.embed_tokens.weight' is missing or not a matrix")
    rule = TernaryRule(whole.get("quantization_config"), masters=row.ternary)
    with ThreadPoolExecutor() as pool:  # numpy lets go of the lock while it works through masters
        tensors = list(pool.map(lambda item: _convert(item[0], item[1], raw, rule, row), raw.items()))
    size = sum(t.data.size for t in raw.values())
    model = replace(read_hf_config(config, embedding.shape[0]), pooling=engine_pooling(folder))
    notes = f"text only: {len(seeing)} tensors that are for pictures are left out" if seeing else ""
    return Checkpoint(model, {t.name: t for t in tensors if t is not None}, whole, size, notes)


def _renamed(raw: Mapping[str, RawTensor], row: Architecture) -> dict[str, RawTensor]:
    renamed: dict[str, RawTensor] = {}
    for tensor in raw.values():
        if tensor.name.endswith(_IGNORED):
            continue
        name = gguf_name(tensor.name, post_norm="post_norm" in row.required)
        if name in renamed:
            raise LoadError(f"tensors {renamed[name].name[:80]!r} and {tensor.name[:80]!r} both stand for {name}")
        renamed[name] = tensor
    return renamed


def _settle_head(raw: dict[str, RawTensor], *, tied: bool) -> None:
    """Believe the stored tensors before `tie_word_embeddings`: a head of its own counts, one that is alone is both."""
    head, embedding = raw.get("output.weight"), raw.get("token_embd.weight")
    if head is None:
        return
    if embedding is None:
        if tied:
            raw["token_embd.weight"] = raw.pop("output.weight")
    elif tied and head.shape == embedding.shape and np.array_equal(head.data, embedding.data):
        del raw["output.weight"]


def _convert(
    name: str, tensor: RawTensor, raw: Mapping[str, RawTensor], rule: TernaryRule, row: Architecture
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
    if row.norm_offset and "norm" in name and len(tensor.shape) == 1 and not name.endswith("_norm_in.weight"):
        return replace(converted, type="F32", data=encode("F32", vector(converted) + np.float32(row.norm_offset)))
    return converted
