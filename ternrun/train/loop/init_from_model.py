"""Initializing a run with the weights of a model file instead of random ones.

A file of ternary weights says which of three values each weight has, but not where the master weight stood between two
roundings when training ended. Each master weight is placed inside its rounding interval so that the model starts as the
exact function of the file: zeros uniformly below half a step, the others beyond half a step such that the mean
magnitude is again the file's scale.

A run may have more blocks than the file. Copies then follow the block that they are copied from. Such a model starts
worse than the file and is better than it after about a hundred steps (arXiv 2405.15319 stacks whole models instead).
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ternrun.errors import ConfigError
from ternrun.loader.model import ModelFile, open_model
from ternrun.loader.quants.table import decode
from ternrun.train.config import GROUP_SIZE, Granularity
from ternrun.train.model.bitlinear import BitLinear
from ternrun.train.model.decoder import Decoder
from ternrun.train.model.gguf_mapping import deinterleave_halves, gguf_name, is_rotary, runtime_config

_MARGIN = 0.02  # distance from the rounding boundary, in steps


@torch.no_grad()
def init_from_model(path: Path, model: Decoder, tokenizer: Tokenizer, seed: int) -> None:
    """Fill `model` with the weights of the file at `path`.

    Raises LoadError for a damaged file, ConfigError if its architecture, sizes or vocabulary differ from the run's.
    """
    with open_model(path) as file:
        _check_same_model(file, model, tokenizer)
        generator = torch.Generator().manual_seed(seed)
        linears = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, BitLinear)}
        for name, parameter in model.named_parameters():
            source = source_parameter(name, file.weights.config.n_layers, model.config.n_layers)
            weight = _read_weight(file, source, model)
            if weight.shape != parameter.shape:
                sizes = f"shape {_size(weight)}, the run's has {_size(parameter)}"
                raise ConfigError(f"{path}: {gguf_name(name)} has {sizes}")
            if name in linears and linears[name].ternary:
                weight = master_weight(weight, linears[name].granularity, generator)
            parameter.copy_(weight)


def initial_model(path: Path) -> dict[str, Any]:
    """The record of a model file in a run's state: name, sha256, and training tokens if its card states them."""
    try:
        training = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["training"]
        tokens = training["tokens"] + ((training.get("begun") or {}).get("tokens") or 0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        tokens = None
    return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "tokens": tokens}


def source_parameter(name: str, file_layers: int, run_layers: int) -> str:
    """The parameter in the file that initializes parameter `name`: with 2 and 5 layers, blocks 0 0 0 1 1."""
    prefix, _, rest = name.partition(".")
    if prefix != "blk":
        return name
    index, _, rest = rest.partition(".")
    return f"blk.{int(index) * file_layers // run_layers}.{rest}"


def master_weight(weight: Tensor, granularity: Granularity, generator: torch.Generator) -> Tensor:
    """Random f32 weights that `ternarize` rounds to the ternary `weight` (rows, cols); other weights are unchanged."""
    grouped = weight.reshape({"tensor": (1, -1), "row": weight.shape, "group": (-1, GROUP_SIZE)}[granularity])
    scale, sign = grouped.abs().amax(1, keepdim=True), grouped.sign()
    if not torch.equal(grouped, sign * scale):
        return weight
    inner = (2 * torch.rand(sign.shape, generator=generator) - 1) * (0.5 - _MARGIN) * (sign == 0)
    outer = torch.randn(sign.shape, generator=generator).abs() * sign.abs()
    rest = sign.shape[1] - inner.abs().sum(1, keepdim=True) - (0.5 + _MARGIN) * sign.abs().sum(1, keepdim=True)
    outer *= rest / outer.sum(1, keepdim=True).clamp(min=1e-6)  # the sum is smaller only if all trits are 0
    return ((inner + sign * (0.5 + _MARGIN + outer)) * scale).view_as(weight)


def _check_same_model(file: ModelFile, model: Decoder, tokenizer: Tokenizer) -> None:
    config, expected = file.weights.config, runtime_config(model.config)
    if model.config.mhc_streams > 1 or config.mhc_streams > 1:
        raise ConfigError(f"{file.path}: a run with several residual streams cannot start from a model file")
    _check_same_vocabulary(file, model.config.vocab_size, tokenizer)
    rope = replace(config.rope, style=expected.rope.style)  # rows of q and k are reordered when they are read
    same = replace(config, architecture=expected.architecture, context_length=expected.context_length, rope=rope)
    for name in (field.name for field in fields(same)):
        theirs, ours = getattr(same, name), getattr(expected, name)
        if name == "n_layers" and theirs < ours:
            continue
        if theirs != ours and not (isinstance(ours, float) and math.isclose(theirs, ours, rel_tol=1e-6)):
            raise ConfigError(f"{file.path} has {name} {theirs}, the run {ours}")
    tensors = {gguf_name(name) for name, _ in model.named_parameters()}
    if unknown := sorted(set(file.weights.tensors) - tensors):
        raise ConfigError(f"{file.path} has {unknown[0]}, which this run's model does not have")


def _check_same_vocabulary(file: ModelFile, vocab_size: int, tokenizer: Tokenizer) -> None:
    ids = range(vocab_size)
    texts = [tokenizer.decode([i], skip_special_tokens=False) for i in ids]
    if file.weights.config.vocab_size != vocab_size or file.tokenizer.pieces(ids) != texts:
        remedy = f"make the data with --tokenizer {file.path}"
        raise ConfigError(f"{file.path} has another tokenizer than the data; {remedy}")


def _read_weight(file: ModelFile, name: str, model: Decoder) -> Tensor:
    """The file's tensor for a parameter, f32, with the rows of q and k in the decoder's order."""
    tensor = file.weights.tensors.get(gguf_name(name))
    if tensor is None:
        raise ConfigError(f"{file.path} has no {gguf_name(name)}, which this run's model has")
    values = torch.from_numpy(decode(tensor.type, tensor.data, tensor.shape, name=tensor.name) * tensor.scale)
    if is_rotary(name) and file.weights.config.rope.style == "norm":
        return deinterleave_halves(values, model.config)
    return values


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
