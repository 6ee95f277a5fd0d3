"""From a graph to the weights and configuration that a GGUF file of the same model would give."""

from __future__ import annotations

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ternrun.loader.onnx.recognition.attention as _  # noqa: F401  which adds its operators to the table of rules
from ternrun.errors import ConfigError, LoadError
from ternrun.loader.architectures import ARCHITECTURES
from ternrun.loader.assemble import GROUPS, assemble
from ternrun.loader.onnx.graph import OnnxModel
from ternrun.loader.onnx.recognition.decoder import Decoder, Layer, Projection, read_decoder
from ternrun.loader.onnx.recognition.encode import matrix, vector
from ternrun.loader.onnx.recognition.pointwise import UnrecognisedError
from ternrun.loader.onnx.recognition.rotation import Head
from ternrun.loader.onnx.recognition.trace import FAULTS, Trace, is_cached
from ternrun.runtime.config import ModelConfig, RopeConfig
from ternrun.runtime.weights import Tensor, Weights

# (new, cached) tokens: some exporters' masks are right only for a whole prompt or for a single token
_RUNS: tuple[tuple[tuple[int, int], ...], ...] = (((3, 2),), ((5, 0), (1, 2)))
_FEWEST_CONTEXT = 2048  # of a graph that says nothing of how long a text may be


@dataclass(frozen=True, slots=True)
class Recognised:
    """`forms` says what the weights were in the graph, and of how many tensors each is true; `notes` what differs."""

    weights: Weights
    forms: Counter[str]
    notes: tuple[str, ...]
    summary: str


def recognise(model: OnnxModel, *, context: int = 0) -> Recognised:
    """The decoder that the graph is. `context` is the longest text, where a file beside the graph states it.

    Raises UnrecognisedError, which names the node at which the graph turns out to be something else; LoadError for
    weights that cannot be used.
    """
    trace, decoder = _read(model)
    try:
        config = _config(decoder, context or trace.tables or _FEWEST_CONTEXT)
    except ConfigError as e:
        raise UnrecognisedError(f"the graph is a decoder of a size that the engine does not run: {e}") from e
    forms: Counter[str] = Counter()
    tensors: dict[str, Tensor] = {}
    wanted = {"token_embd.weight": _all_of(decoder.embedding)} | dict(_projections(decoder))
    if not _is_tied(decoder):
        wanted["output.weight"] = decoder.head
    if decoder.head.bias is not None:
        tensors["output.bias"] = vector("output.bias", decoder.head.bias)
    with ThreadPoolExecutor() as pool:  # numpy lets go of the lock while it turns matrices round
        for tensor, was in pool.map(lambda item: matrix(*item), wanted.items()):
            tensors[tensor.name] = tensor
            forms[f"{was} -> {tensor.type}"] += 1
    tensors["output_norm.weight"] = vector("output_norm.weight", decoder.output_norm)
    for name, values in _vectors(decoder):
        tensors[name] = vector(name, values)
    return Recognised(assemble(config, tensors), forms, tuple(dict.fromkeys(trace.notes)), _summary(config, decoder))


@np.errstate(all="ignore")  # hostile numbers may be infinite or none
def _read(model: OnnxModel) -> tuple[Trace, Decoder]:
    """Trace and read; a graph that only takes whole prompts or single tokens must be the same decoder for both."""
    first: UnrecognisedError | None = None
    for runs in _RUNS if is_cached(model) else (((5, 0),),):
        found = []
        try:
            for new, past in runs:
                trace = Trace(model, new, past)
                trace.run()
                found.append((trace, read_decoder(trace)))
        except FAULTS as e:
            raise UnrecognisedError(f"the graph cannot be read as a decoder: {str(e)[:160]}") from e
        except UnrecognisedError as e:
            first = UnrecognisedError(f"{first}; as a whole prompt: {e}") if first else e
            continue
        if len(found) > 1 and _shape(found[0][1]) != _shape(found[1][1]):
            raise UnrecognisedError("the graph computes something else for a prompt than for one token")
        return found[0]
    assert first
    raise first


def _shape(decoder: Decoder) -> list[Any]:
    """What must agree between two readings of one graph."""
    return [
        (layer.heads, layer.shared, layer.width, layer.activation, layer.window, sorted(layer.vectors),
         sorted((name, p.weight.name, p.first, p.rows) for name, p in layer.matrices.items()))
        for layer in decoder.layers
    ]  # fmt: skip


def _config(decoder: Decoder, context: int) -> ModelConfig:
    """Raises UnrecognisedError for layers that differ in ways the engine does not know."""
    if not decoder.layers:
        raise UnrecognisedError("the graph has no layers")
    first = decoder.layers[0]
    same = ("heads", "shared", "width", "activation")
    for n, layer in enumerate(decoder.layers):
        if any(getattr(layer, k) != getattr(first, k) for k in same) or layer.vectors.keys() != first.vectors.keys():
            raise UnrecognisedError(f"layer {n} is of another shape than layer 0")
        if not math.isclose(_scale(layer), _scale(first), rel_tol=1e-3):
            raise UnrecognisedError(f"layer {n} scales its attention differently than layer 0")
    eps = sorted(decoder.eps)
    if not math.isclose(eps[0], eps[-1], rel_tol=1e-3):
        raise UnrecognisedError(f"its norms have different eps, from {eps[0]:g} to {eps[-1]:g}")
    scale = _scale(first)
    vocab, dim = decoder.embedding.shape
    window = max(layer.window for layer in decoder.layers)
    if any(layer.window not in (0, window) for layer in decoder.layers):
        raise UnrecognisedError("its layers have sliding windows of different sizes")
    usual = math.isclose(scale, first.width**-0.5, rel_tol=1e-3)
    fields: dict[str, Any] = {
        "vocab_size": vocab, "context_length": context, "dim": dim, "n_layers": len(decoder.layers),
        "n_heads": first.heads, "n_kv_heads": first.shared, "head_dim": first.width,
        "ffn_dim": first.matrices["ffn_up"].rows, "norm_eps": float(f"{eps[0]:.5g}"), "activation": first.activation,
        "embedding_scale": decoder.embedding_scale, "attention_scale": 0.0 if usual else scale,
        "sliding_window": window, "sliding_layers": tuple(bool(x.window) for x in decoder.layers) if window else (),
        "logit_softcap": decoder.softcap, "rope": _rope(decoder.layers),
    }  # fmt: skip
    return ModelConfig(architecture=_architecture(first, fields["rope"]), **fields)


def _scale(layer: Layer) -> float:
    return layer.scale * layer.query.scale * layer.key.scale


def _architecture(layer: Layer, rope: RopeConfig) -> str:
    """The plainest architecture that has just these parts, so that `convert` writes a file others can read."""
    groups = set()
    for group, names in GROUPS.items():
        parts = {name.split(".")[0]: name.rpartition(".")[2] for name in names}
        if all((p in layer.vectors) if kind == "weight" else _biased(layer, p) for p, kind in parts.items()):
            groups.add(group)
    for name in ("llama", "qwen2", "qwen3", "gemma3", "bitnet", "bitnet-b1.58"):
        known = ARCHITECTURES[name]
        fits = set(known.required) <= groups <= {*known.required, *known.optional}
        if fits and known.activation == layer.activation and (rope.style == "neox" or name == "llama"):
            return name if name != "gemma3" else "ternrun"  # whose embedding scale and local base are its own
    return "ternrun"


def _biased(layer: Layer, name: str) -> bool:
    return name in layer.matrices and layer.matrices[name].bias is not None


def _rope(layers: list[Layer]) -> RopeConfig:
    """One rotation for all layers, or two of which the sliding layers have one."""
    for n, layer in enumerate(layers):
        query, key = layer.query, layer.key
        alike = (query.dim, query.style) == (key.dim, key.style) and np.allclose(query.angles, key.angles, rtol=1e-3)
        if not alike:
            raise UnrecognisedError(f"layer {n} rotates queries and keys differently")
    wide = next((x for x in layers if not x.window), layers[0])
    local = next((x for x in layers if x.window), None)
    for n, layer in enumerate(layers):
        meant = wide if not layer.window or local is None else local
        if layer.query.dim != meant.query.dim or not np.allclose(layer.query.angles, meant.query.angles, rtol=1e-3):
            raise UnrecognisedError(f"layer {n} rotates by other angles than the others")
    head = wide.query
    if not head.dim:
        raise UnrecognisedError("it has no rotary embedding; the engine has no other way to know positions")
    base, factors = _base(head)
    local_base = 0.0
    if local is not None and not np.allclose(local.query.angles, head.angles, rtol=1e-3):
        local_base, odd = _base(local.query)
        if odd:
            raise UnrecognisedError("its sliding layers scale their rotary embedding")
    magnitude = math.sqrt(head.magnitude * wide.key.magnitude)
    return RopeConfig(
        dim=head.dim, base=base, local_base=local_base, style=head.style, frequency_factors=factors,
        attention_factor=1.0 if math.isclose(magnitude, 1, rel_tol=2e-3) else magnitude,
    )  # fmt: skip


def _base(head: Head) -> tuple[float, tuple[float, ...]]:
    """The base whose powers the angles are, and divisors where they are not quite that."""
    angles = head.angles
    order = np.arange(len(angles)) / len(angles)
    if len(angles) == 1:
        return 10000.0, () if math.isclose(angles[0], 1, rel_tol=1e-3) else (float(1 / angles[0]),)
    guess = float(np.exp(-np.median(np.log(angles[1:]) / order[1:])))
    for digits in (1, 2, 3, 4):
        base = float(f"{max(guess, 1.01):.{digits - 1}e}")
        if np.allclose(angles, base**-order, rtol=2e-3):
            return base, ()
    if np.allclose(angles, guess**-order, rtol=2e-3):
        return guess, ()
    start = float(np.clip(np.exp(-np.log(angles[1]) / order[1]), 2.0, 1e9))  # long waves are what scalings change
    base = next((b for d in range(3) if abs((b := float(f"{start:.{d}e}")) / start - 1) < 1e-3), start)
    return base, tuple((base**-order / angles).tolist())


def _all_of(weight: Any) -> Projection:
    return Projection(weight, 0, weight.shape[0], None)


def _projections(decoder: Decoder) -> list[tuple[str, Projection]]:
    return [
        (f"blk.{n}.{name}.weight", projection)
        for n, layer in enumerate(decoder.layers)
        for name, projection in layer.matrices.items()
    ]


def _vectors(decoder: Decoder) -> list[tuple[str, NDArray[np.float32]]]:
    """Norms and biases. Of query, key and value biases that not all are there, the missing ones are zero."""
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
    """What was recognised, in a line for people."""
    parts = [f"{config.n_layers} layers", f"{config.n_heads} heads"]
    if config.n_kv_heads != config.n_heads:
        parts.append(f"{config.n_kv_heads} key heads")
    parts += [f"RoPE base {config.rope.base:g}", f"{config.activation} feed-forward"]
    first = decoder.layers[0].vectors
    parts += [text for key, text in (("attn_q_norm", "q/k norms"), ("attn_sub_norm", "sub-norms")) if key in first]
    parts += ["sliding window"] * bool(config.sliding_window)
    parts.append("tied head" if _is_tied(decoder) else "own head")
    return ", ".join(parts)


__all__ = ["LoadError", "Recognised", "UnrecognisedError", "recognise"]
