"""A checkpoint as GGUF: trits and scales as training used them, tokenizer inside, a standard architecture if one fits.

Ternary tensors are written exactly; the embedding and an own head are rounded to fp16 (or Q8_0), norms stay f32.
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
from ternrun.loader.architectures.table import write_config
from ternrun.loader.gguf.write import write_gguf
from ternrun.loader.model import open_model
from ternrun.loader.quants.table import decode, encode, encode_trits
from ternrun.loader.sampling_defaults import write_sampling
from ternrun.runtime.config import ModelConfig, RopeConfig, SamplingParams
from ternrun.runtime.encodings import ENCODINGS, nbytes
from ternrun.train.config import Shape
from ternrun.train.data.tokenizer import gguf_metadata
from ternrun.train.model.bitlinear import GROUP, BitLinear, ternarize
from ternrun.train.model.decoder import Decoder

KERNEL = "kernel"  # the layout of ternrun's own kernels: T9, by the granularity of the scales
TYPES = {"tq2_0": "TQ2_0", "tq1_0": "TQ1_0", "i2_s": "I2_S", KERNEL: KERNEL}
FLOAT_TYPES = {"f16": "F16", "f32": "F32", "q8_0": "Q8_0"}


@dataclass(frozen=True, slots=True)
class _Written:
    name: str
    type: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


def architecture(shape: Shape) -> str:
    """The `general.architecture` that other programs know this model by; `ternrun` where none fits.

    llama.cpp's `bitnet` is SubLN with SiLU and a tied head; `bitnet-b1.58` the same with relu squared.
    """
    if shape.mhc_streams == 1:
        if shape.sub_norm and shape.tied and not shape.qk_norm:
            return "bitnet" if shape.activation == "silu" else "bitnet-b1.58"
        if not shape.sub_norm and shape.activation == "silu":
            return "qwen3" if shape.qk_norm else "llama"
    return "ternrun"


def model_config(shape: Shape) -> ModelConfig:
    """What the runtime reads back from the exported file."""
    name = architecture(shape)
    return ModelConfig(
        architecture=name,
        vocab_size=shape.vocab_size,
        context_length=shape.context,
        dim=shape.dim,
        n_layers=shape.n_layers,
        n_heads=shape.n_heads,
        n_kv_heads=shape.n_kv_heads,
        head_dim=shape.width,
        ffn_dim=shape.ffn_dim,
        norm_eps=shape.norm_eps,
        rope=RopeConfig(dim=shape.width, base=shape.rope_base, style="norm" if name == "llama" else "neox"),
        activation=shape.activation,
        mhc_streams=shape.mhc_streams,
    )


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
    """Write `model` to `path`; `repeat_penalty` is what the file recommends, 1 for nothing.

    Raises UsageError where the type cannot hold it, ConfigError for a penalty that no reader takes.
    """
    SamplingParams(repeat_penalty=repeat_penalty)  # the range that the runtime holds files to
    if tokenizer.get_vocab_size() != model.shape.vocab_size:
        raise UsageError(f"the tokenizer has {tokenizer.get_vocab_size()} tokens, the model {model.shape.vocab_size}")
    if ternary not in TYPES or dense not in FLOAT_TYPES:
        raise UsageError(
            f"a model is exported as {', '.join(TYPES)} with {', '.join(FLOAT_TYPES)}, not {ternary} with {dense}"
        )
    metadata: dict[str, Any] = {
        "general.name": name,
        **write_config(model_config(model.shape)),
        **gguf_metadata(tokenizer),
        **(write_sampling({"repeat_penalty": repeat_penalty}) if repeat_penalty != 1.0 else {}),
    }
    write_gguf(path, metadata, list(_tensors(model, TYPES[ternary], FLOAT_TYPES[dense])))


@torch.no_grad()
def round_dense(model: Decoder, dense: str = "f16") -> Decoder:
    """Round the embedding and an own head in place to what `export` writes: the model is then exactly the file's."""
    for table in filter(None, (model.token_embd, model.output)):
        weight = table.weight.float().cpu().numpy()
        kind = FLOAT_TYPES[dense]
        table.weight.copy_(torch.from_numpy(decode(kind, encode(kind, weight), weight.shape)))
    return model


def dense_type(path: Path) -> str:
    """In which of `FLOAT_TYPES` an exported file holds its embedding. Raises LoadError; UsageError where it is none."""
    with open_model(path) as file:
        kind = file.weights.tensors["token_embd.weight"].type
    for name, encoding in FLOAT_TYPES.items():
        if kind == encoding:
            return name
    raise UsageError(f"{path} has its embedding in {kind}, which `ternrun train export` does not write")


def _tensors(model: Decoder, ternary: str, dense: str) -> list[_Written]:
    linears = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, BitLinear)}
    mixes = {f"{name}.weight": module for name, module in model.named_modules() if hasattr(module, "table")}
    written = [_mixing(name, module.table()) for name, module in mixes.items()]
    for name, parameter in model.named_parameters():
        if name in linears:
            written.append(_linear(name, linears[name], model.shape, ternary))
        elif not any(name.startswith(mix.removesuffix("weight")) for mix in mixes):
            kind = "F32" if parameter.ndim == 1 else dense
            written.append(_encoded(gguf_name(name), kind, parameter.detach().float().cpu().numpy()))
    return written


def _linear(name: str, linear: BitLinear, shape: Shape, ternary: str) -> _Written:
    weight = linear.weight.detach().float().cpu()
    if "attn_q." in name or "attn_k." in name:
        weight = _rope_order(weight, shape)
    if not linear.ternary:
        return _encoded(gguf_name(name), "F16", weight.numpy())
    trits, scale = ternarize(weight, linear.granularity)
    rows, cols = trits.shape
    if ternary == KERNEL:
        ternary = f"T9_{GROUP}" if linear.granularity == "group" else "T9_ROW"
    if nbytes(ternary, (rows, cols)) is None:
        raise UsageError(f"{name} is {rows} x {cols}; {ternary} needs a multiple of {ENCODINGS[ternary].block} columns")
    scales = scale[:, :, 0].expand(rows, -1).numpy()
    return _Written(gguf_name(name), ternary, (rows, cols), encode_trits(ternary, trits.to(torch.int8).numpy(), scales))


def _rope_order(weight: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Rows of q and k as `llama` wants them: the two halves of each head interleaved into adjacent pairs."""
    if architecture(shape) != "llama":
        return weight
    heads = weight.view(-1, 2, shape.width // 2, weight.shape[1])
    return heads.transpose(1, 2).reshape(weight.shape)


def halves_order(weight: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Undo `llama`'s order of the rows of q and k."""
    return weight.view(-1, shape.width // 2, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _mixing(name: str, table: torch.Tensor) -> _Written:
    return _encoded(gguf_name(name), "F32", table.detach().float().cpu().numpy())


def _encoded(name: str, kind: str, values: NDArray[np.float32]) -> _Written:
    return _Written(name, kind, values.shape, encode(kind, values))


def gguf_name(name: str) -> str:
    """Module path to GGUF name: `blk.0.attention.attn_q.weight` -> `blk.0.attn_q.weight`."""
    return name.replace(".attention.", ".").replace(".ffn.", ".")
