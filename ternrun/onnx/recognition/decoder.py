"""Read a decoder from a trace: the engine must be able to compute every term of its residual stream."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.onnx.recognition.pointwise import activation_of, single_source
from ternrun.onnx.recognition.rotation import Head, read_head
from ternrun.onnx.recognition.symbolic import LinearForm, Source, Term
from ternrun.onnx.recognition.trace import Trace, UnrecognizedError
from ternrun.onnx.recognition.weights import Weight


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Rows `first` to `first + rows` of a weight, multiplied by `scale` and by `factor` (one number a row)."""

    weight: Weight
    first: int
    rows: int
    bias: NDArray[np.float32] | None
    scale: float = 1.0
    factor: NDArray[np.float32] | None = None


@dataclass(slots=True)
class Layer:
    """One layer as read from the graph; tensors are named by the last part of their GGUF name."""

    matrices: dict[str, Projection] = field(default_factory=dict)
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    query: Head = field(init=False)
    key: Head = field(init=False)
    heads: int = 0
    shared: int = 0
    width: int = 0
    scale: float = 0.0
    window: int = 0
    activation: str = ""


@dataclass(slots=True)
class Decoder:
    """A model as read from the graph; `eps` holds the epsilons of all norms."""

    embedding: Weight
    embedding_scale: float
    layers: list[Layer]
    output_norm: NDArray[np.float32]
    head: Projection
    softcap: float
    eps: set[float]


def read_decoder(trace: Trace, output: str, logits: Any) -> Decoder:
    """The decoder whose logits are the graph's output of this name.

    Raises UnrecognizedError naming the node that is not part of a decoder that the engine can run.
    """
    if not isinstance(logits, LinearForm):
        raise UnrecognizedError(f"output {output[:80]!r} does not depend on the tokens")
    return _Reading(trace).decoder(logits)


class _Reading:
    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.eps: set[float] = set()

    def decoder(self, logits: LinearForm) -> Decoder:
        logits, softcap = self._softcap(logits)
        head, x = self._linear(logits, "the logits")
        residual, output_norm = self._norm(x, "the head")
        terms = sorted((self._part(residual, t) for t in residual.terms), key=lambda p: p[0].base)
        if not terms or terms[0][0].kind != "embedding" or len(terms) % 2 != 1:
            raise UnrecognizedError(f"{self._node(x)}: the residual stream is not an embedding and two sums a layer")
        embedding, scale = terms[0]
        layers, sofar = [], [terms[0]]
        for attention, feedforward in zip(terms[1::2], terms[2::2], strict=True):
            layer = Layer()
            self._attention(layer, attention, sofar)
            sofar.append(attention)
            self._feedforward(layer, feedforward, sofar)
            sofar.append(feedforward)
            layers.append(layer)
        weight: Weight = embedding.parts["weight"]
        return Decoder(weight, scale, layers, output_norm, head, softcap, self.eps)

    def _node(self, form: LinearForm) -> Any:
        """The node that produced the last part of a form."""
        return max((self.trace.owner(int(t.ids.flat[0])) for t in form.terms), key=lambda s: s.base).node

    def _softcap(self, logits: LinearForm) -> tuple[LinearForm, float]:
        """c tanh(x / c)."""
        found = single_source(self.trace, logits, "pointwise")
        if found is None:
            return logits, 0.0
        source, scale = found
        f, at = source.parts["f"], np.array([0.1, 1.0, 10.0, 40.0])
        cap = float(abs(scale * f(np.float64(1e9))))
        if not 0 < cap < 1e6 or not np.allclose(scale * f(at), cap * np.tanh(at / cap), rtol=1e-4):
            raise UnrecognizedError(f"{source.node}: the logits pass through a function that the engine does not know")
        return source.parts["x"], cap

    def _linear(self, form: LinearForm, what: str) -> tuple[Projection, LinearForm]:
        """The projection whose outputs, all in order, are the form; and its input."""
        found = single_source(self.trace, form, "linear")
        if found is None:
            raise UnrecognizedError(f"{self._node(form)}: {what} do not come from one projection")
        source, scale = found
        return self._projection(source, 0, source.shape[-1], scale), source.parts["x"]

    def _projection(self, source: Source, first: int, rows: int, scale: float = 1.0) -> Projection:
        bias, factor = source.parts["bias"], source.parts.get("factor")
        if bias is not None:
            bias = bias[first : first + rows].astype(np.float32) * np.float32(scale)
        if factor is not None:
            factor = factor[first : first + rows]
            if bias is not None:
                raise UnrecognizedError(f"{source.node}: a projection is scaled after its bias was added")
        return Projection(source.parts["weight"], first, rows, bias, scale, factor)

    def _norm(self, form: LinearForm, what: str) -> tuple[LinearForm, NDArray[np.float32]]:
        """The input and the weight of the RMSNorm that is the whole form."""
        found = single_source(self.trace, form, "norm")
        if found is None:
            raise UnrecognizedError(f"{self._node(form)}: {what} does not read an RMSNorm")
        source, scale = found
        self.eps.add(source.parts["eps"])
        weight = source.parts["weight"]
        weight = np.ones(source.shape[-1], np.float32) if weight is None else weight
        return source.parts["x"], weight * np.float32(scale)

    def _part(self, residual: LinearForm, term: Term) -> tuple[Source, float]:
        found = single_source(self.trace, LinearForm((term,), None, residual.shape), "embedding", "linear", "norm")
        if found is None or (residual.const is not None and residual.const.any()):
            raise UnrecognizedError(
                f"{self._node(residual)}: the residual stream is a sum of other values than projections"
            )
        return found

    def _post_norm(self, layer: Layer, part: tuple[Source, float], name: str) -> tuple[Source, float]:
        """The projection below a norm on a sublayer's output (gemma3)."""
        source, scale = part
        if source.kind != "norm":
            return part
        x, weight = self._norm(source.form(), "a sublayer's sum")
        layer.vectors[name] = weight * np.float32(scale)
        below = single_source(self.trace, x, "linear")
        if below is None:
            raise UnrecognizedError(f"{source.node}: a norm on a sublayer's output does not follow a projection")
        return below

    def _same_stream(self, form: LinearForm, sofar: list[tuple[Source, float]], what: str) -> None:
        """Raises UnrecognizedError unless the norm before a sublayer reads exactly the sums before it."""
        parts = sorted((self._part(form, t) for t in form.terms), key=lambda p: p[0].base)
        if [(id(s), c) for s, c in parts] != [(id(s), c) for s, c in sofar]:
            raise UnrecognizedError(f"{self._node(form)}: {what} does not read the whole residual stream before it")

    def _attention(self, layer: Layer, part: tuple[Source, float], sofar: list[tuple[Source, float]]) -> None:
        source, scale = self._post_norm(layer, part, "post_attention_norm")
        layer.matrices["attn_output"] = self._projection(source, 0, source.shape[-1], scale)
        x: LinearForm = source.parts["x"]
        factor = 1.0
        if (sub := single_source(self.trace, x, "norm")) is not None:
            x, layer.vectors["attn_sub_norm"] = self._norm(x, "the output projection")
            del sub
        joined, factor = self._joined(x)
        parts = joined.parts
        layer.heads, layer.width = joined.shape[1], parts["k"].shape[3]
        layer.shared, layer.window, layer.scale = parts["k"].shape[1], parts["window"], parts["scale"]
        self.trace.node = joined.node
        layer.query, layer.key = read_head(self.trace, parts["q"]), read_head(self.trace, parts["k"])
        value = read_head(self.trace, parts["v"])
        if value.dim or value.norm is not None or parts["v"].shape != parts["k"].shape:
            raise UnrecognizedError(f"{joined.node}: its values are rotated, normed or of another size than its keys")
        streams = []
        for name, head, heads, by in (
            ("attn_q", layer.query, layer.heads, 1.0),
            ("attn_k", layer.key, layer.shared, 1.0),
            ("attn_v", value, layer.shared, value.scale * factor),
        ):
            layer.matrices[name] = self._projection(head.linear, head.first, heads * layer.width, by)
            streams.append(head.linear.parts["x"])
            if head.norm is not None:
                self.eps.add(head.norm.parts["eps"])
                weight = head.norm.parts["weight"]
                layer.vectors[f"{name}_norm"] = np.ones(layer.width, np.float32) if weight is None else weight
        self._check_shared(streams, joined)
        stream, layer.vectors["attn_norm"] = self._norm(streams[0], "an attention")
        self._same_stream(stream, sofar, "an attention")

    def _joined(self, x: LinearForm) -> tuple[Source, float]:
        """The attention whose heads are concatenated in the form, and a factor."""
        top = self.trace.owner(int(x.terms[0].ids.flat[0])) if len(x.terms) == 1 else None
        if top is None or top.kind != "attention":
            raise UnrecognizedError(
                f"{self._node(x)}: what it adds to the residual stream does not come from an attention"
            )
        order = top.form().view(lambda a: a.swapaxes(1, 2).reshape(1, top.shape[2], -1))
        ratio = x.view(lambda a: a.reshape(order.shape)).ratio(order) if x.terms[0].ids.size == top.size else None
        if ratio is None:
            raise UnrecognizedError(f"{top.node}: its heads are not put side by side in their order")
        return top, ratio

    def _check_shared(self, streams: list[LinearForm], source: Source) -> None:
        if not all(s is streams[0] or s.same(streams[0]) for s in streams):
            raise UnrecognizedError(f"{source.node}: its projections do not read the same input")

    def _feedforward(self, layer: Layer, part: tuple[Source, float], sofar: list[tuple[Source, float]]) -> None:
        source, scale = self._post_norm(layer, part, "post_ffw_norm")
        layer.matrices["ffn_down"] = self._projection(source, 0, source.shape[-1], scale)
        x: LinearForm = source.parts["x"]
        if single_source(self.trace, x, "norm") is not None:
            x, layer.vectors["ffn_sub_norm"] = self._norm(x, "the down projection")
        found = single_source(self.trace, x, "product")
        if found is None:
            raise UnrecognizedError(f"{self._node(x)}: the feed-forward is not one with a gate")
        product, factor = found
        streams = []
        for gate, up in (("a", "b"), ("b", "a")):
            active = activation_of(self.trace, product.parts[gate])
            if active is None:
                continue
            layer.activation, inner = active
            for name, form, by in (("ffn_gate", inner, 1.0), ("ffn_up", product.parts[up], factor)):
                layer.matrices[name], stream = self._columns(form, by)
                streams.append(stream)
            break
        else:
            raise UnrecognizedError(f"{product.node}: its activation is not SiLU, GELU (with tanh) or squared ReLU")
        self._check_shared(streams, product)
        stream, layer.vectors["ffn_norm"] = self._norm(streams[0], "a feed-forward")
        self._same_stream(stream, sofar, "a feed-forward")

    def _columns(self, form: LinearForm, factor: float) -> tuple[Projection, LinearForm]:
        """The projection whose consecutive outputs are the form, because gate and up may be one matrix; and its
        input.
        """
        term = form.terms[0]
        source = self.trace.owner(int(term.ids.flat[0]))
        first, columns = int(term.ids.flat[0]) - source.base, source.shape[-1]
        rows = form.shape[-1]
        expected = source.base + first + np.arange(self.trace.new)[:, None] * columns + np.arange(rows)
        scale = float(term.coef.flat[0])
        fits = len(form.terms) == 1 and term.ids.size == expected.size and 0 <= first <= columns - rows
        if source.kind != "linear" or not fits or (term.ids.reshape(expected.shape) != expected).any():
            raise UnrecognizedError(f"{source.node}: gate and up are not parts of a projection")
        if (term.coef != scale).any() or (form.const is not None and form.const.any()):
            raise UnrecognizedError(f"{source.node}: gate or up is changed before they meet")
        return self._projection(source, first, rows, scale * factor), source.parts["x"]


def scaled(projection: Projection, by: float) -> Projection:
    """The projection multiplied by a number."""
    bias = None if projection.bias is None else projection.bias * np.float32(by)
    return replace(projection, scale=projection.scale * by, bias=bias)
