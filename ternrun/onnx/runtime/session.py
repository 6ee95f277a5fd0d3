"""Run any ONNX graph operator by operator on numpy: `Session(path).run({"input": array})`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ternrun.errors import UsageError
from ternrun.onnx import operators
from ternrun.onnx.format.graph import OnnxModel, Value
from ternrun.onnx.format.limits import MAX_STEPS, Budget
from ternrun.onnx.format.reader import open_onnx
from ternrun.onnx.format.tensors import CODES, DTYPES
from ternrun.onnx.operators.blas import one_thread
from ternrun.onnx.operators.cpu import in_use
from ternrun.onnx.operators.dispatch import Scope
from ternrun.onnx.runtime.execution_plan import ExecutionPlan

assert operators.__all__  # the import fills the table of kernels


class Session:
    """A graph with its execution plan. Any number of threads may run it at the same time: a run leaves no state."""

    def __init__(self, model: OnnxModel | str | Path) -> None:
        """Raises LoadError naming the node that cannot be run, MissingExtra without the onnx package."""
        if not isinstance(model, OnnxModel):
            model = open_onnx(model)
        self.model = model
        graph = model.graph
        self.inputs: tuple[Value, ...] = tuple(v for v in graph.inputs if v.name not in graph.initializers)
        self.outputs: tuple[Value, ...] = graph.outputs
        self._optional = tuple(v for v in graph.inputs if v.name in graph.initializers)
        self._plan = ExecutionPlan(graph, Scope(model.functions, model.opsets, {}))

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name. `feeds` has a value for each of `inputs`: an array of the type that the graph states.

        Raises UsageError for inputs that do not fit, LoadError naming the node that failed.
        """
        known = {v.name: v for v in (*self.inputs, *self._optional)}
        for name in feeds:
            if name not in known:
                raise UsageError(f"the graph has no input {name[:60]!r}; it has {', '.join(known)[:200]}")
        values = [
            _checked(known[n], feeds) if n in feeds or n not in self._defaults else None for n in self._plan.inputs
        ]
        with np.errstate(all="ignore"), one_thread() if in_use() else nullcontext():
            results = self._plan.run(Budget(MAX_STEPS), values)
        return dict(zip((v.name for v in self.outputs), results, strict=True))

    @property
    def _defaults(self) -> set[str]:
        return {v.name for v in self._optional}


def _checked(value: Value, feeds: Mapping[str, Any]) -> Any:
    """The fed value, if its type and shape are those that the graph states. Raises UsageError."""
    if value.name not in feeds:
        raise UsageError(f"the graph's input {value.name[:60]!r} has no value")
    fed = feeds[value.name]
    if value.kind != "tensor" or fed is None:
        return fed
    array = np.asarray(fed)
    kind = DTYPES[CODES[value.dtype]].numpy if value.dtype else None
    if kind not in (None, "O") and array.dtype != np.dtype(kind):
        raise UsageError(f"input {value.name[:60]!r} is of type {array.dtype}; the graph wants {np.dtype(kind)}")
    if value.shape is not None and array.ndim != len(value.shape):
        raise UsageError(f"input {value.name[:60]!r} has {array.ndim} dimensions; the graph wants {len(value.shape)}")
    for have, want in zip(array.shape, value.shape or (), strict=False):
        if isinstance(want, int) and have != want:
            raise UsageError(f"input {value.name[:60]!r} has shape {list(array.shape)}; the graph wants {value.shape}")
    return array.view()  # a new view, because ConstantCache treats the same read-only array as a constant
