"""onnx's standard backend interface (onnx.backend.base), for harnesses that drive any ONNX backend.

from ternrun.onnx import backend
outputs = backend.prepare(onnx.load("model.onnx")).run([array, ...])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ternrun.errors import MissingExtra, UsageError

try:
    import onnx
    from onnx.backend.base import Backend, BackendRep, namedtupledict
except ImportError as e:
    raise MissingExtra("the ONNX backend interface", "onnx") from e

from ternrun.onnx.format.reader import read_onnx
from ternrun.onnx.runtime.session import Session


class TernrunRep(BackendRep):  # type: ignore[misc]
    """A prepared graph."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def run(self, inputs: Any, **kwargs: Any) -> Any:
        """Outputs as a named tuple, for inputs in the graph's order or by name. Raises like Session.run."""
        names = [v.name for v in self.session.inputs]
        if not isinstance(inputs, dict):
            values = inputs if isinstance(inputs, (Sequence, tuple)) else [inputs]
            if len(values) > len(names):  # the values include inputs that have initializers
                names = [v.name for v in self.session.model.graph.inputs]
            inputs = dict(zip(names, values, strict=False))
        results = self.session.run(inputs)
        return namedtupledict("Outputs", list(results))(*results.values())


class TernrunBackend(Backend):  # type: ignore[misc]
    """Runs graphs on the CPU, operator by operator."""

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> TernrunRep:
        """Prepare a ModelProto, checked like a file. Raises LoadError naming the node that cannot be run."""
        if not cls.supports_device(device):
            raise UsageError(f"ONNX graphs run on the CPU, not on {device!r}")
        return TernrunRep(Session(read_onnx(model.SerializeToString())))

    @classmethod
    def run_model(cls, model: Any, inputs: Any, device: str = "CPU", **kwargs: Any) -> Any:
        """Prepare a model and run it."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(cls, node: Any, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any) -> Any:
        """Run one NodeProto of the newest operator set, or of `opset_version`."""
        version = kwargs.get("opset_version", onnx.defs.onnx_opset_version())
        opsets = [onnx.helper.make_opsetid("", version)]
        if node.domain:
            opsets.append(onnx.helper.make_opsetid(node.domain, kwargs.get("domain_version", 1)))
        names = [n for n in node.input if n]
        values = dict(zip(names, inputs, strict=False)) if not isinstance(inputs, dict) else inputs
        infos = []
        for name in names:
            array = values[name]
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            infos.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
        outs = [onnx.ValueInfoProto(name=n) for n in node.output if n]
        graph = onnx.helper.make_graph([node], "node", infos, outs)
        return cls.run_model(onnx.helper.make_model(graph, opset_imports=opsets), values, device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """True for "CPU" only."""
        return bool(device == "CPU")


prepare = TernrunBackend.prepare
run_model = TernrunBackend.run_model
run_node = TernrunBackend.run_node
supports_device = TernrunBackend.supports_device
