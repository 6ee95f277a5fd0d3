"""Begin a run with the weights of a model file, ternary or not, rather than with random ones.

A file of ternary weights says which of three values each weight has, not where in that value's range the weight stood
when training ended. It is put somewhere in that range, so that the model begins as the very function the file holds:
zeros evenly below half a step, the others beyond it as far as makes the mean magnitude the file's scale again.

A run may have more blocks than the file: copies then follow the block they are of. Such a model begins worse than the
file and is better than it after a hundred steps (arXiv 2405.15319 stacks models whole; here the order stays).
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ternrun.errors import ConfigError
from ternrun.loader.model import ModelFile, open_model
from ternrun.loader.quants.table import decode
from ternrun.train.export.gguf import gguf_name, halves_order, model_config
from ternrun.train.model.bitlinear import GROUP, BitLinear, Granularity
from ternrun.train.model.decoder import Decoder

_MARGIN = 0.02  # of a step, kept clear on both sides of the point where a weight's value changes


@torch.no_grad()
def begin_from(path: Path, model: Decoder, tokenizer: Tokenizer, seed: int) -> None:
    """Fill `model` with the weights of the file at `path`.

    Raises LoadError for a damaged file, ConfigError where its shape, wiring or vocabulary is not that of the run.
    """
    with open_model(path) as file:
        _check_same(file, model, tokenizer)
        generator = torch.Generator().manual_seed(seed)
        linears = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, BitLinear)}
        for name, parameter in model.named_parameters():
            stored = _stored(file, origin(name, file.weights.config.n_layers, model.shape.n_layers), model)
            if stored.shape != parameter.shape:
                raise ConfigError(f"{path}: {gguf_name(name)} has shape {_by(stored)}, the run's has {_by(parameter)}")
            if name in linears and linears[name].ternary:
                stored = spread(stored, linears[name].granularity, generator)
            parameter.copy_(stored)


def origin(name: str, held: int, wanted: int) -> str:
    """Which parameter of a model of `held` blocks that of one of `wanted` begins as: 2 blocks become 5 as 0 0 0 1 1."""
    prefix, _, rest = name.partition(".")
    if prefix != "blk":
        return name
    index, _, rest = rest.partition(".")
    return f"blk.{int(index) * held // wanted}.{rest}"


def spread(weight: Tensor, granularity: Granularity, generator: torch.Generator) -> Tensor:
    """A master weight (rows, cols) that `ternarize` makes this one of, where this one is ternary; else itself."""
    grouped = weight.reshape({"tensor": (1, -1), "row": weight.shape, "group": (-1, GROUP)}[granularity])
    scale, sign = grouped.abs().amax(1, keepdim=True), grouped.sign()
    if not torch.equal(grouped, sign * scale):
        return weight
    inner = (2 * torch.rand(sign.shape, generator=generator) - 1) * (0.5 - _MARGIN) * (sign == 0)
    outer = torch.randn(sign.shape, generator=generator).abs() * sign.abs()
    rest = sign.shape[1] - inner.abs().sum(1, keepdim=True) - (0.5 + _MARGIN) * sign.abs().sum(1, keepdim=True)
    outer *= rest / outer.sum(1, keepdim=True).clamp(min=1e-6)  # only without any outer one is the sum less
    return ((inner + sign * (0.5 + _MARGIN + outer)) * scale).view_as(weight)


def _check_same(file: ModelFile, model: Decoder, tokenizer: Tokenizer) -> None:
    config, wanted = file.weights.config, model_config(model.shape)
    if model.shape.mhc_streams > 1 or config.mhc_streams > 1:
        raise ConfigError(f"{file.path}: a run with several residual streams cannot begin from a model file")
    ids = range(model.shape.vocab_size)
    texts = [tokenizer.decode([i], skip_special_tokens=False) for i in ids]
    if config.vocab_size != len(ids) or file.tokenizer.pieces(ids) != texts:
        remedy = f"make the data with --tokenizer {file.path}"
        raise ConfigError(f"{file.path} has another tokenizer than the data; {remedy}")
    rope = replace(config.rope, style=wanted.rope.style)  # the rows of q and k are put in order as they are read
    same = replace(config, architecture=wanted.architecture, context_length=wanted.context_length, rope=rope)
    for name in (field.name for field in fields(same)):
        stated, asked = getattr(same, name), getattr(wanted, name)
        if name == "n_layers" and stated < asked:
            continue
        if stated != asked and not (isinstance(asked, float) and math.isclose(stated, asked, rel_tol=1e-6)):
            raise ConfigError(f"{file.path} has {name} {stated}, the run {asked}")
    tensors = {gguf_name(name) for name, _ in model.named_parameters()}
    if more := sorted(set(file.weights.tensors) - tensors):
        raise ConfigError(f"{file.path} has {more[0]}, which a model of this run has not")


def _stored(file: ModelFile, name: str, model: Decoder) -> Tensor:
    """The file's tensor for a parameter, f32, rows of q and k in halves."""
    tensor = file.weights.tensors.get(gguf_name(name))
    if tensor is None:
        raise ConfigError(f"{file.path} has no {gguf_name(name)}, which a model of this run has")
    values = torch.from_numpy(decode(tensor.type, tensor.data, tensor.shape, name=tensor.name) * tensor.scale)
    if ("attn_q." in name or "attn_k." in name) and file.weights.config.rope.style == "norm":
        return halves_order(values, model.shape)
    return values


def _by(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
