"""From a graph to the weights and configuration that a GGUF file of the same model would give."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import ConfigError
from ternrun.loader.architectures.assemble import assemble
from ternrun.loader.onnx.decoder_config import decoder_config
from ternrun.loader.onnx.encode import matrix, vector
from ternrun.onnx.format.graph import OnnxModel
from ternrun.onnx.recognition.decoder import Decoder, Projection
from ternrun.onnx.recognition.trace import UnrecognizedError
from ternrun.onnx.recognition.trace_decoder import trace_decoder
from ternrun.runtime.config import ModelConfig
from ternrun.runtime.weights import Tensor, Weights

DEFAULT_CONTEXT = 2048  # tokens, for a graph that states no limit


@dataclass(frozen=True, slots=True)
class Recognized:
    """`forms` counts tensors by their form in the graph and here; `notes` says what the engine computes differently."""

    weights: Weights
    forms: Counter[str]
    notes: tuple[str, ...]
    summary: str


def recognize(model: OnnxModel, *, context: int = 0) -> Recognized:
    """The decoder that the graph computes. `context` is the longest text in tokens, 0 if no file states it.

    Raises UnrecognizedError, which names the node that shows that the graph is something else, and LoadError for
    weights that cannot be used.
    """
    traced = trace_decoder(model)
    decoder = traced.decoder
    try:
        config = decoder_config(decoder, context or traced.positions or DEFAULT_CONTEXT)
    except ConfigError as e:
        raise UnrecognizedError(f"the graph is a decoder of a size that the engine does not run: {e}") from e
    forms: Counter[str] = Counter()
    tensors: dict[str, Tensor] = {}
    wanted = {"token_embd.weight": _all_of(decoder.embedding)} | dict(_projections(decoder))
    if not _is_tied(decoder):
        wanted["output.weight"] = decoder.head
    if decoder.head.bias is not None:
        tensors["output.bias"] = vector("output.bias", decoder.head.bias)
    with ThreadPoolExecutor() as pool:  # numpy releases the lock while it transposes
        for tensor, was in pool.map(lambda item: matrix(*item), wanted.items()):
            tensors[tensor.name] = tensor
            forms[f"{was} -> {tensor.type}"] += 1
    tensors["output_norm.weight"] = vector("output_norm.weight", decoder.output_norm)
    for name, values in _vectors(decoder):
        tensors[name] = vector(name, values)
    return Recognized(assemble(config, tensors), forms, traced.notes, _summary(config, decoder))


def _all_of(weight: Any) -> Projection:
    return Projection(weight, 0, weight.shape[0], None)


def _projections(decoder: Decoder) -> list[tuple[str, Projection]]:
    return [
        (f"blk.{n}.{name}.weight", projection)
        for n, layer in enumerate(decoder.layers)
        for name, projection in layer.matrices.items()
    ]


def _vectors(decoder: Decoder) -> list[tuple[str, NDArray[np.float32]]]:
    """Norms and biases. If only some projections of a group have biases, the others get zeros."""
    found = []
    for n, layer in enumerate(decoder.layers):
        found += [(f"blk.{n}.{name}.weight", values) for name, values in layer.vectors.items()]
        for names in (("attn_q", "attn_k", "attn_v"), ("attn_output",), ("ffn_gate", "ffn_up", "ffn_down")):
            parts = [layer.matrices[name] for name in names]
            if any(p.bias is not None for p in parts):
                for name, part in zip(names, parts, strict=True):
                    bias = np.zeros(part.rows, np.float32) if part.bias is None else part.bias
                    found.append((f"blk.{n}.{name}.bias", bias))
    return found


def _is_tied(decoder: Decoder) -> bool:
    """Whether the head is the embedding: one tensor, or two that hold the same bytes."""
    a, b, head = decoder.embedding, decoder.head.weight, decoder.head
    if head.scale != 1 or head.factor is not None or head.rows != a.shape[0] or a.shape != b.shape:
        return False
    if (a.scales is None) != (b.scales is None) or a.tensor.dtype != b.tensor.dtype:
        return False
    if a.scales is not None and b.scales is not None:
        same = np.array_equal(a.scales.scale, b.scales.scale) and np.array_equal(a.scales.zero, b.scales.zero)
        return same and a.swapped == b.swapped and np.array_equal(a.tensor.data, b.tensor.data)
    if a.tensor is b.tensor or a.tensor.name == b.tensor.name:
        return a.swapped == b.swapped
    left, right = (w.floats().T if w.swapped else w.floats() for w in (a, b))
    return bool(np.array_equal(left[:1], right[:1])) and np.array_equal(left, right)


def _summary(config: ModelConfig, decoder: Decoder) -> str:
    """One line that describes the decoder."""
    parts = [f"{config.n_layers} layers", f"{config.n_heads} heads"]
    if config.n_kv_heads != config.n_heads:
        parts.append(f"{config.n_kv_heads} key heads")
    parts += [f"RoPE base {config.rope.base:g}", f"{config.activation} feed-forward"]
    first = decoder.layers[0].vectors
    parts += [text for key, text in (("attn_q_norm", "q/k norms"), ("attn_sub_norm", "sub-norms")) if key in first]
    parts += ["sliding window"] * bool(config.sliding_window)
    parts.append("tied head" if _is_tied(decoder) else "own head")
    return ", ".join(parts)
