"""Exporting a decoder as GGUF, with its tokenizer inside and a standard architecture if one matches.

Ternary tensors are written exactly as training used them. The embedding and an untied head are rounded to fp16 or Q8_0.
Norms stay in f32.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ternrun.errors import UsageError
from ternrun.loader.architectures.write_config import write_config
from ternrun.loader.gguf.write import write_gguf
from ternrun.loader.model import open_model
from ternrun.loader.quants.table import decode, encode, encode_trits
from ternrun.loader.sampling_defaults import write_sampling
from ternrun.runtime.config import SamplingParams
from ternrun.runtime.encodings import ENCODINGS, nbytes
from ternrun.train.config import GROUP_SIZE, DecoderConfig
from ternrun.train.data.tokenizer import gguf_metadata
from ternrun.train.model.bitlinear import BitLinear, ternarize
from ternrun.train.model.decoder import Decoder
from ternrun.train.model.gguf_mapping import architecture, gguf_name, interleave_halves, is_rotary, runtime_config

KERNEL = "kernel"  # the layout of ternrun's own kernels (T9); its variant depends on the granularity of the scales
TERNARY_TYPES = {"tq2_0": "TQ2_0", "tq1_0": "TQ1_0", "i2_s": "I2_S", KERNEL: KERNEL}
DENSE_TYPES = {"f16": "F16", "f32": "F32", "q8_0": "Q8_0"}


@dataclass(frozen=True, slots=True)
class _EncodedTensor:
    name: str
    type: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


def export(
    model: Decoder,
    tokenizer: Tokenizer,
    path: Path,
    *,
    ternary: str = "tq2_0",
    dense: str = "f16",
    name: str = "ternrun",
    repeat_penalty: float = 1.0,
) -> None:
    """Write `model` to the GGUF file `path`. The file recommends `repeat_penalty` to its users; 1 recommends nothing.

    Raises UsageError if the type cannot store the model, ConfigError if the penalty is out of range.
    """
    SamplingParams(repeat_penalty=repeat_penalty)  # checks the range
    if tokenizer.get_vocab_size() != model.config.vocab_size:
        raise UsageError(f"the tokenizer has {tokenizer.get_vocab_size()} tokens, the model {model.config.vocab_size}")
    if ternary not in TERNARY_TYPES or dense not in DENSE_TYPES:
        types = f"{', '.join(TERNARY_TYPES)} with {', '.join(DENSE_TYPES)}"
        raise UsageError(f"a model is exported as {types}, not {ternary} with {dense}")
    metadata: dict[str, Any] = {
        "general.name": name,
        **write_config(runtime_config(model.config)),
        **gguf_metadata(tokenizer),
        **(write_sampling({"repeat_penalty": repeat_penalty}) if repeat_penalty != 1.0 else {}),
    }
    write_gguf(path, metadata, list(_tensors(model, TERNARY_TYPES[ternary], DENSE_TYPES[dense])))


@torch.no_grad()
def round_dense(model: Decoder, dense: str = "f16") -> Decoder:
    """Round the embedding and an untied head in place as `export` does; the model then equals the file exactly."""
    for table in filter(None, (model.token_embd, model.output)):
        weight = table.weight.float().cpu().numpy()
        encoding = DENSE_TYPES[dense]
        table.weight.copy_(torch.from_numpy(decode(encoding, encode(encoding, weight), weight.shape)))
    return model


def dense_type(path: Path) -> str:
    """The key of `DENSE_TYPES` in which an exported file stores its embedding. Raises LoadError, UsageError."""
    with open_model(path) as file:
        found = file.weights.tensors["token_embd.weight"].type
    for name, encoding in DENSE_TYPES.items():
        if found == encoding:
            return name
    raise UsageError(f"{path} has its embedding in {found}, which `ternrun train export` does not write")


def _tensors(model: Decoder, ternary: str, dense: str) -> list[_EncodedTensor]:
    linears = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, BitLinear)}
    mixings = {f"{name}.weight": module for name, module in model.named_modules() if hasattr(module, "table")}
    tensors = [_encode(name, "F32", module.table().detach().float().cpu().numpy()) for name, module in mixings.items()]
    for name, parameter in model.named_parameters():
        if name in linears:
            tensors.append(_encode_linear(name, linears[name], model.config, ternary))
        elif not any(name.startswith(mixing.removesuffix("weight")) for mixing in mixings):
            encoding = "F32" if parameter.ndim == 1 else dense
            tensors.append(_encode(name, encoding, parameter.detach().float().cpu().numpy()))
    return tensors


def _encode_linear(name: str, linear: BitLinear, config: DecoderConfig, ternary: str) -> _EncodedTensor:
    weight = linear.weight.detach().float().cpu()
    if is_rotary(name) and architecture(config) == "llama":
        weight = interleave_halves(weight, config)
    if not linear.ternary:
        return _encode(name, "F16", weight.numpy())
    trits, scale = ternarize(weight, linear.granularity)
    rows, cols = trits.shape
    if ternary == KERNEL:
        ternary = f"T9_{GROUP_SIZE}" if linear.granularity == "group" else "T9_ROW"
    if nbytes(ternary, (rows, cols)) is None:
        raise UsageError(f"{name} is {rows} x {cols}; {ternary} needs a multiple of {ENCODINGS[ternary].block} columns")
    scales = scale[:, :, 0].expand(rows, -1).numpy()
    data = encode_trits(ternary, trits.to(torch.int8).numpy(), scales)
    return _EncodedTensor(gguf_name(name), ternary, (rows, cols), data)


def _encode(name: str, encoding: str, values: NDArray[np.float32]) -> _EncodedTensor:
    return _EncodedTensor(gguf_name(name), encoding, values.shape, encode(encoding, values))
