"""Open ONNX files: check sizes, shapes, names and order, and return the graph with its weights mapped.

The reader executes nothing and copies no weight. It ignores training information. Sparse initializers and tensors in
segments are errors.
"""

from __future__ import annotations

import mmap
import stat
from pathlib import Path
from typing import Any

from ternrun.errors import LoadError
from ternrun.onnx.format.check import check_model
from ternrun.onnx.format.external import ExternalData
from ternrun.onnx.format.graph import Function, Graph, Node, OnnxModel, Reference, Value
from ternrun.onnx.format.tensors import DTYPES, OnnxTensor, read_tensor
from ternrun.onnx.format.wire import Fields, Span, Wire

MAX_FILE = 1 << 31  # protobuf's own bound; larger models store their weights in data files
MAX_DEPTH = 16  # graphs within graphs, types within types
MAX_NODES = 1 << 18
MAX_TENSORS = 1 << 17
MAX_OPSET = 1 << 16

_MODEL: Fields = {
    1: ("ir_version", "i"), 2: ("producer_name", "s"), 3: ("producer_version", "s"), 7: ("graph", "b"),
    8: ("opset_import", "b*"), 14: ("metadata_props", "b*"), 25: ("functions", "b*"),
}  # fmt: skip
_GRAPH: Fields = {
    1: ("node", "b*"), 2: ("name", "s"), 5: ("initializer", "b*"), 11: ("input", "b*"), 12: ("output", "b*"),
    15: ("sparse_initializer", "b*"),
}  # fmt: skip
_NODE: Fields = {
    1: ("input", "s*"), 2: ("output", "s*"), 3: ("name", "s"), 4: ("op_type", "s"), 5: ("attribute", "b*"),
    7: ("domain", "s"), 8: ("overload", "s"),
}  # fmt: skip
_ATTRIBUTE: Fields = {
    1: ("name", "s"), 2: ("f", "f"), 3: ("i", "i"), 4: ("s", "s"), 5: ("t", "b"), 6: ("g", "b"), 7: ("floats", "f*"),
    8: ("ints", "i*"), 9: ("strings", "s*"), 10: ("tensors", "b*"), 11: ("graphs", "b*"), 14: ("tp", "b"),
    15: ("type_protos", "b*"), 20: ("type", "i"), 21: ("ref_attr_name", "s"),
}  # fmt: skip
_FUNCTION: Fields = {
    1: ("name", "s"), 4: ("input", "s*"), 5: ("output", "s*"), 6: ("attribute", "s*"), 7: ("node", "b*"),
    9: ("opset_import", "b*"), 10: ("domain", "s"), 11: ("attribute_proto", "b*"), 13: ("overload", "s"),
}  # fmt: skip
_OPSET: Fields = {1: ("domain", "s"), 2: ("version", "i")}
_ENTRY: Fields = {1: ("key", "s"), 2: ("value", "b")}
_VALUE: Fields = {1: ("name", "s"), 2: ("type", "b")}
_TYPE: Fields = {1: ("tensor", "b"), 4: ("sequence", "b"), 5: ("map", "b"), 8: ("sparse", "b"), 9: ("optional", "b")}
_TENSOR_TYPE: Fields = {1: ("elem_type", "i"), 2: ("shape", "b")}
_WRAPPED: Fields = {1: ("elem_type", "b")}  # sequence and optional
_SHAPE: Fields = {1: ("dim", "b*")}
_DIM: Fields = {1: ("value", "i"), 2: ("symbol", "s")}

_ATTRIBUTE_FIELDS = {
    1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings", 9: "tensors", 10: "graphs", 13: "tp",
    14: "type_protos",
}  # fmt: skip


def open_onnx(path: str | Path) -> OnnxModel:
    """Map and check a .onnx file and the data files it names.

    Raises LoadError: one sentence that names the node, the tensor or the file at fault.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # opening a pipe could wait forever
            raise LoadError(f"{path} is not a regular file")
        with path.open("rb") as f:
            if not path.stat().st_size:
                raise LoadError(f"{path} is empty (0 bytes); download it again")
            data = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError as e:
        raise LoadError(f"{path} does not exist") from e
    except (OSError, ValueError) as e:
        raise LoadError(f"{path} cannot be read: {e}") from e
    return read_onnx(data, path.parent)


def read_onnx(data: bytes | memoryview, folder: Path | None = None) -> OnnxModel:
    """Check a model's bytes; `folder` holds its data files, and None refuses such files. Raises LoadError."""
    if len(data) > MAX_FILE:
        raise LoadError(f"it has {len(data)} bytes; an ONNX file has at most {MAX_FILE}, and its weights beside it")
    return _Reader(memoryview(data), ExternalData(folder)).model()


class _Reader:
    def __init__(self, data: memoryview, external: ExternalData) -> None:
        self._wire = Wire(data)
        self._external = external
        self._nodes = self._tensors = 0
        self._bytes = 0  # total of all tensors, which may share bytes of data files

    def model(self) -> OnnxModel:
        wire = self._wire
        proto = wire.message((0, len(wire.data)), _MODEL, "this file is not an ONNX model")
        if proto["graph"] is None or not proto["opset_import"]:
            raise LoadError("this file is not an ONNX model: it has no graph, or no version of ONNX's operators")
        functions: dict[tuple[str, str, str], Function] = {}
        for span in proto["functions"]:
            function = self._function(span)
            if function.key in functions:
                raise LoadError(f"function {function.name[:80]!r} is defined twice")
            functions[function.key] = function
        entries = [wire.message(s, _ENTRY, "the model's metadata") for s in proto["metadata_props"]]
        model = OnnxModel(
            graph=self._graph(proto["graph"], 0),
            functions=functions,
            opsets=self._opsets(proto["opset_import"]),
            ir_version=proto["ir_version"],
            producer=f"{proto['producer_name']} {proto['producer_version']}".strip(),
            metadata={e["key"]: str(wire.data[slice(*(e["value"] or (0, 0)))], "utf-8", "replace") for e in entries},
            size=len(wire.data) + self._external.size,
        )
        check_model(model)
        return model

    def _opsets(self, spans: list[Span]) -> dict[str, int]:
        opsets = {}
        for span in spans:
            proto = self._wire.message(span, _OPSET, "an operator set")
            if not 1 <= proto["version"] <= MAX_OPSET:
                raise LoadError(f"operator set {proto['domain'][:80]!r} has the version {proto['version']}")
            opsets[_domain(proto["domain"])] = proto["version"]
        return opsets

    def _graph(self, span: Span, depth: int) -> Graph:
        if depth > MAX_DEPTH:
            raise LoadError(f"graphs are nested more than {MAX_DEPTH} deep")
        proto = self._wire.message(span, _GRAPH, "the graph")
        if proto["sparse_initializer"]:
            raise LoadError("the graph has sparse initializers, which are not supported")
        initializers: dict[str, OnnxTensor] = {}
        for s in proto["initializer"]:
            tensor = self._tensor(s, "an initializer")
            if not tensor.name or tensor.name in initializers:
                raise LoadError(f"initializer {tensor.name[:80]!r} has no name, or the name of another")
            initializers[tensor.name] = tensor
        return Graph(
            name=proto["name"],
            nodes=self._all_nodes(proto["node"], depth),
            initializers=initializers,
            inputs=tuple(self._value(s) for s in proto["input"]),
            outputs=tuple(self._value(s) for s in proto["output"]),
        )

    def _all_nodes(self, spans: list[Span], depth: int) -> tuple[Node, ...]:
        self._nodes += len(spans)
        if self._nodes > MAX_NODES:
            raise LoadError(f"the graph has more than {MAX_NODES} nodes")
        return tuple(self._node(s, depth) for s in spans)

    def _node(self, span: Span, depth: int) -> Node:
        proto = self._wire.message(span, _NODE, "a node")
        name = proto["name"] or next(iter(proto["output"]), "")
        what = f"node {name[:80]!r} ({proto['op_type'][:80]})"
        attributes: dict[str, Any] = {}
        for s in proto["attribute"]:
            key, value = self._attribute(s, what, depth)
            if key in attributes:
                raise LoadError(f"{what} states the attribute {key[:80]!r} twice")
            attributes[key] = value
        return Node(
            op=proto["op_type"],
            inputs=tuple(proto["input"]),
            outputs=tuple(proto["output"]),
            attributes=attributes,
            name=proto["name"],
            domain=_domain(proto["domain"]),
            overload=proto["overload"],
            proto=self._wire.data[slice(*span)],
        )

    def _attribute(self, span: Span, what: str, depth: int) -> tuple[str, Any]:
        proto = self._wire.message(span, _ATTRIBUTE, what)
        name = proto["name"]
        if proto["ref_attr_name"]:
            return name, Reference(proto["ref_attr_name"])
        kind = proto["type"] or next((k for k, f in _ATTRIBUTE_FIELDS.items() if proto[f]), 2)  # old files have no type
        if kind not in _ATTRIBUTE_FIELDS:
            raise LoadError(f"{what}: attribute {name[:80]!r} is of kind {kind}, which is not supported")
        field = _ATTRIBUTE_FIELDS[kind]
        value = proto[field]
        if value is None:
            raise LoadError(f"{what}: attribute {name[:80]!r} has no value")
        label = f"attribute {name[:80]!r} of {what}"
        match field:
            case "t":
                return name, self._tensor(value, label)
            case "tensors":
                return name, [self._tensor(s, label) for s in value]
            case "g":
                return name, self._graph(value, depth + 1)
            case "graphs":
                return name, [self._graph(s, depth + 1) for s in value]
            case "tp":
                return name, self._type("", value, 0)
            case "type_protos":
                return name, [self._type("", s, 0) for s in value]
        return name, value

    def _tensor(self, span: Span, what: str) -> OnnxTensor:
        self._tensors += 1
        if self._tensors > MAX_TENSORS:
            raise LoadError(f"the file has more than {MAX_TENSORS} tensors")
        tensor = read_tensor(self._wire, span, self._external, what)
        self._bytes += tensor.nbytes
        if self._bytes > 4 * (len(self._wire.data) + self._external.size) + (1 << 20):
            raise LoadError(f"tensor {tensor.name[:80]!r}: too many tensors use the same bytes of the file")
        return tensor

    def _value(self, span: Span) -> Value:
        proto = self._wire.message(span, _VALUE, "an input or output")
        return self._type(proto["name"], proto["type"], 0)

    def _type(self, name: str, span: Span | None, depth: int) -> Value:
        what = f"the type of {name[:80]!r}"
        if depth > MAX_DEPTH:
            raise LoadError(f"{what} is nested more than {MAX_DEPTH} deep")
        if span is None:
            return Value(name, kind="unknown")
        proto = self._wire.message(span, _TYPE, what)
        if proto["tensor"] is not None:
            return self._tensor_type(name, proto["tensor"], what)
        for kind in ("sequence", "optional"):
            if proto[kind] is not None:
                inner = self._type(name, self._wire.message(proto[kind], _WRAPPED, what)["elem_type"], depth + 1)
                return Value(name, inner.dtype, inner.shape, kind if inner.kind == "tensor" else f"{kind} {inner.kind}")
        return Value(name, kind="map" if proto["map"] is not None else "unknown")

    def _tensor_type(self, name: str, span: Span, what: str) -> Value:
        proto = self._wire.message(span, _TENSOR_TYPE, what)
        dtype = DTYPES.get(proto["elem_type"])
        if dtype is None and proto["elem_type"]:
            raise LoadError(f"{what} is of data type {proto['elem_type']}, which is not one of ONNX's")
        shape: tuple[int | str | None, ...] | None = None
        if proto["shape"] is not None:
            dims = self._wire.message(proto["shape"], _SHAPE, what)["dim"]
            shape = tuple(self._dim(s, what) for s in dims)
        return Value(name, dtype.name if dtype else "", shape)

    def _dim(self, span: Span, what: str) -> int | str | None:
        proto = self._wire.message(span, _DIM, what)
        if proto["symbol"]:
            return str(proto["symbol"])
        return int(proto["value"]) if span[0] != span[1] and proto["value"] >= 0 else None

    def _function(self, span: Span) -> Function:
        proto = self._wire.message(span, _FUNCTION, "a function")
        what = f"function {proto['name'][:80]!r}"
        return Function(
            domain=_domain(proto["domain"]),
            name=proto["name"],
            overload=proto["overload"],
            inputs=tuple(proto["input"]),
            outputs=tuple(proto["output"]),
            attributes=tuple(proto["attribute"]),
            defaults=dict(self._attribute(s, what, 0) for s in proto["attribute_proto"]),
            nodes=self._all_nodes(proto["node"], 0),
            opsets=self._opsets(proto["opset_import"]),
        )


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name
