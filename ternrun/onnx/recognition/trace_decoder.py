"""Recognize the decoder that a graph computes: trace the graph at one size or two, and read each trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ternrun.onnx.format.graph import OnnxModel
from ternrun.onnx.recognition.decoder import Decoder, read_decoder
from ternrun.onnx.recognition.inputs import is_cached
from ternrun.onnx.recognition.trace import UnrecognizedError
from ternrun.onnx.recognition.tracer import FAULTS, Tracer

# (new, cached) tokens of each run: some exporters' masks are correct only for a whole prompt or for a single token
_CACHED: tuple[tuple[tuple[int, int], ...], ...] = (((3, 2),), ((5, 0), (1, 2)))
_UNCACHED = (((5, 0),),)


@dataclass(frozen=True, slots=True)
class Traced:
    """A decoder as read from the graph.

    `positions` is the number of rows of the longest angle table, 0 without one; `notes` describes the parts of the
    graph that the engine leaves out.
    """

    decoder: Decoder
    positions: int
    notes: tuple[str, ...]


@np.errstate(all="ignore")  # hostile graphs hold infinities and NaNs
def trace_decoder(model: OnnxModel) -> Traced:
    """The decoder that the graph computes.

    A graph that takes only whole prompts or single tokens must be the same decoder for both. Raises UnrecognizedError,
    which names the node that shows that the graph is something else.
    """
    first: UnrecognizedError | None = None
    for sizes in _CACHED if is_cached(model) else _UNCACHED:
        try:
            found = [_traced(model, new, past) for new, past in sizes]
        except FAULTS as e:
            raise UnrecognizedError(f"the graph cannot be read as a decoder: {str(e)[:160]}") from e
        except UnrecognizedError as e:
            first = UnrecognizedError(f"{first}; as a whole prompt: {e}") if first else e
            continue
        if len(found) > 1 and _structure(found[0].decoder) != _structure(found[1].decoder):
            raise UnrecognizedError("the graph computes something else for a prompt than for one token")
        return found[0]
    assert first
    raise first


def _traced(model: OnnxModel, new: int, past: int) -> Traced:
    tracer = Tracer(model, new, past)
    values = tracer.run()
    output = model.graph.outputs[0].name
    decoder = read_decoder(tracer.trace, output, values[output])
    return Traced(decoder, tracer.trace.tables, tuple(dict.fromkeys(tracer.trace.notes)))


def _structure(decoder: Decoder) -> list[Any]:
    """The parts that must agree between two readings of one graph."""
    return [
        (layer.heads, layer.shared, layer.width, layer.activation, layer.window, sorted(layer.vectors),
         sorted((name, p.weight.name, p.first, p.rows) for name, p in layer.matrices.items()))
        for layer in decoder.layers
    ]  # fmt: skip
