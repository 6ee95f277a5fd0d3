"""The reader against the onnx package's own parser, and against files that lie."""

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ternrun.errors import LoadError
from ternrun.loader.onnx.open_file import open_file
from ternrun.onnx.format.graph import Graph, Node
from ternrun.onnx.format.reader import read_onnx
from ternrun.onnx.format.tensors import CODES, OnnxTensor
from ternrun.onnx.format.wire import varints


def tiny(initializers=(), nodes=None, **kwargs) -> onnx.ModelProto:
    nodes = nodes or [helper.make_node("Identity", ["x"], ["y"])]
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", None, 3]) for n in "xy"]
    graph = helper.make_graph(nodes, "tiny", value[:1], value[1:], list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], **kwargs)


def read(model: onnx.ModelProto, folder: Path | None = None):
    return read_onnx(model.SerializeToString(), folder)


def same_tensor(ours: OnnxTensor, theirs: TensorProto) -> None:
    a, b = ours.array(), numpy_helper.to_array(theirs)
    assert (ours.name, a.dtype, a.shape) == (theirs.name, b.dtype, b.shape)
    assert a.tobytes() == b.tobytes() if a.dtype != object else (a == b).all()


def same_node(ours: Node, theirs: onnx.NodeProto) -> None:
    assert (ours.op, list(ours.inputs), list(ours.outputs)) == (theirs.op_type, list(theirs.input), list(theirs.output))
    assert onnx.NodeProto.FromString(bytes(ours.proto)) == theirs
    for attribute in theirs.attribute:
        a, b = ours.attributes[attribute.name], None
        if attribute.ref_attr_name:
            assert a.name == attribute.ref_attr_name
            continue
        b = helper.get_attribute_value(attribute)
        if isinstance(a, OnnxTensor):
            same_tensor(a, b)
        elif isinstance(a, Graph):
            same_graph(a, b)
        elif isinstance(a, str):
            assert a.encode() == b
        elif isinstance(b, (int, float)):
            np.testing.assert_equal(a, b)
        elif isinstance(b, list) and b and isinstance(b[0], (int, float)):
            assert a == b


def same_graph(ours: Graph, theirs: onnx.GraphProto) -> None:
    assert [v.name for v in (*ours.inputs, *ours.outputs)] == [v.name for v in (*theirs.input, *theirs.output)]
    for tensor in theirs.initializer:
        same_tensor(ours.initializers[tensor.name], tensor)
    for a, b in zip(ours.nodes, theirs.node, strict=True):
        same_node(a, b)


def test_every_stored_model_of_onnx_reads_as_onnx_reads_it() -> None:
    files = sorted((Path(onnx.__file__).parent / "backend/test/data").rglob("*.onnx"))
    assert len(files) > 100
    for file in files:
        model, theirs = open_file(file), onnx.load(file)
        same_graph(model.graph, theirs.graph)
        for function in theirs.functions:
            domain = "" if function.domain == "ai.onnx" else function.domain
            ours = model.functions[domain, function.name, function.overload]
            for a, b in zip(ours.nodes, function.node, strict=True):
                same_node(a, b)


@pytest.mark.parametrize("name", CODES)
def test_tensors_of_every_type_in_raw_and_typed_fields(name: str) -> None:
    if name == "STRING":
        same_tensor(*pair(helper.make_tensor("t", TensorProto.STRING, [3], [b"a", b"", "é".encode()])))
        return
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2, 15).astype(np.float32).reshape(3, 5)
    made = helper.make_tensor("t", CODES[name], [3, 5], values.ravel().astype(complex if "COMPLEX" in name else float))
    if not name.startswith("FLOAT6"):  # which is read from raw_data only
        same_tensor(*pair(made))
    same_tensor(*pair(numpy_helper.from_array(numpy_helper.to_array(made), "t")))


def pair(tensor: TensorProto) -> tuple[OnnxTensor, TensorProto]:
    return read(tiny([tensor])).graph.initializers["t"], tensor


def test_small_integers_unpack_without_onnx() -> None:
    for name, low, high in (("INT2", -2, 1), ("UINT2", 0, 3), ("INT4", -8, 7), ("UINT4", 0, 15), ("INT8", -128, 127)):
        values = np.arange(low, high + 1).repeat(3)[:35]
        ours, _ = pair(helper.make_tensor("t", CODES[name], [values.size], values))
        assert ours.integers().tolist() == values.tolist()


def test_varints_of_every_length() -> None:
    numbers = [0, 1, 127, 128, 300, 2**31, 2**63, 2**64 - 1]
    tensor = TensorProto(uint64_data=numbers)
    packed = tensor.SerializeToString()
    assert varints(memoryview(packed)[2:], "it").tolist() == numbers


def test_a_weight_in_the_file_is_a_view_of_it() -> None:
    weight = np.random.default_rng(0).standard_normal((64, 64), np.float32)
    data = tiny([numpy_helper.from_array(weight, "w")]).SerializeToString()
    tensor = read_onnx(data).graph.initializers["w"]
    assert np.shares_memory(tensor.array(), np.frombuffer(data, np.uint8))
    assert not tensor.array().flags.writeable


def external(tensor_data: bytes = b"", **entries: str) -> onnx.ModelProto:
    tensor = TensorProto(name="w", dims=[2, 3], data_type=1, data_location=1)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tiny([tensor])


def test_external_data(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.data").write_bytes(b"....." + values.tobytes())
    model = read(external(location="sub/w.data", offset="5", length="24"), tmp_path)
    assert (model.graph.initializers["w"].array() == values.reshape(2, 3)).all()
    assert model.size > 29


def test_a_hugging_face_cache_may_link_into_its_blobs(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "1f" / "onnx"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "abc").write_bytes(bytes(24))
    (snapshot / "w.data").symlink_to(blobs / "abc")
    read(external(location="w.data"), snapshot)
    (tmp_path / "secret").write_bytes(bytes(24))
    (snapshot / "s.data").symlink_to(tmp_path / "secret")
    with pytest.raises(LoadError, match="leads out"):
        read(external(location="s.data"), snapshot)


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        ({}, "not a file of the model's folder"),
        ({"location": "/etc/passwd"}, "not a file of the model's folder"),
        ({"location": "../w.data"}, "not a file of the model's folder"),
        ({"location": "a/../../w.data"}, "not a file of the model's folder"),
        ({"location": "C:\\w.data"}, "not a file of the model's folder"),
        ({"location": "a\0b"}, "not a file of the model's folder"),
        ({"location": "missing"}, "is missing"),
        ({"location": "."}, "is not a regular file"),
        ({"location": "w.data", "offset": "8"}, "asks for bytes 8 to 32"),
        ({"location": "w.data", "offset": "-8"}, "not a number"),
        ({"location": "w.data", "offset": "9" * 18}, "which has 24"),
        ({"location": "w.data", "length": "12"}, "states 12"),
        ({"location": "w.data", "length": "1e3"}, "not a number"),
    ],
)
def test_external_data_that_lies(tmp_path: Path, entries: dict[str, str], fault: str) -> None:
    (tmp_path / "w.data").write_bytes(bytes(24))
    with pytest.raises(LoadError, match=fault) as e:
        read(external(**entries), tmp_path)
    assert "'w'" in str(e.value)


def node(op: str, inputs: str, outputs: str, **attributes) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=f"the {op}", **attributes)


def nested(depth: int) -> onnx.ModelProto:
    graph = helper.make_graph([node("Identity", "x", "z")], "inner", [], [helper.make_empty_tensor_value_info("z")])
    for i in range(depth):
        made = helper.make_empty_tensor_value_info(f"z{i}")
        graph = helper.make_graph([node("If", "x", f"z{i}", then_branch=graph)], "outer", [], [made])
    return tiny(nodes=[node("If", "x", "y", then_branch=graph)])


def function(name: str, *nodes: onnx.NodeProto) -> onnx.FunctionProto:
    return helper.make_function("own", name, ["a"], ["b"], list(nodes), [helper.make_opsetid("", 23)])


def doubling(levels: int) -> onnx.ModelProto:
    functions = [function("f0", node("Relu", "a", "b"))]
    for i in range(1, levels):
        calls = [helper.make_node(f"f{i - 1}", [x], [y], domain="own") for x, y in ("ac", "cb")]
        functions.append(function(f"f{i}", *calls))
    return tiny(nodes=[helper.make_node(f"f{levels - 1}", ["x"], ["y"], domain="own")], functions=functions)


def tensor(**fields) -> onnx.ModelProto:
    return tiny([TensorProto(**{"name": "w", "data_type": 1, "dims": [2]} | fields)])


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        (tiny(nodes=[node("Relu", "q", "y")]), r"node 'the Relu' \(Relu\) reads 'q'"),
        (tiny(nodes=[node("Relu", "a", "y"), node("Abs", "y", "a")]), "reads 'a', which no earlier node produces"),
        (tiny(nodes=[node("Relu", "x", "y"), node("Abs", "x", "y")]), "produces 'y', which already exists"),
        (tiny(nodes=[node("Split", "x", "y y")]), "produces 'y', which already exists"),
        (tiny(nodes=[node("Relu", "x", "z")]), "returns 'y', which no node produces"),
        (nested(20), "nested more than 16"),
        (tensor(raw_data=b"1234567"), r"'w' of shape \[2\] and type FLOAT asks for 8 bytes and has 7"),
        (tensor(dims=[1 << 40, 1 << 40]), "impossible shape"),
        (tensor(dims=[1 << 40]), "asks for 4398046511104 bytes and has 0"),
        (tensor(dims=[-2]), "impossible shape"),
        (tensor(dims=[1] * 99), "impossible shape"),
        (tensor(data_type=99), "data type 99"),
        (tensor(int32_data=[1, 2]), "has its data in int32_data"),
        (tensor(raw_data=bytes(8), float_data=[1, 2]), "states its data twice"),
        (tensor(float_data=[1, 2, 3]), "asks for 8 bytes and has 12"),
        (tensor(data_location=1, raw_data=bytes(8)), "states its data twice"),
        (tiny(functions=[function("f", helper.make_node("f", ["a"], ["b"], domain="own"))]), "'f' calls itself"),
        (doubling(40), "calls functions of more than"),
    ],
)
def test_faults_are_named(model: onnx.ModelProto, fault: str) -> None:
    start = time.perf_counter()
    with pytest.raises(LoadError, match=fault):
        read(model)
    assert time.perf_counter() - start < 2


def test_files_that_are_something_else(tmp_path: Path) -> None:
    for begins, fault in (
        (b"<!DOCTYPE html>", "web page"), (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"{}", "JSON"),
        (b"GGUF\3\0\0\0", "GGUF"), (b"", "empty"), (b"\xff" * 50, "not an ONNX model"), (b"PK\x03\x04", "zip"),
    ):  # fmt: skip
        file = tmp_path / "m.onnx"
        file.write_bytes(begins)
        with pytest.raises(LoadError, match=fault):
            open_file(file)
    with pytest.raises(LoadError, match="does not exist"):
        open_file(tmp_path / "none.onnx")
    whole = tiny([numpy_helper.from_array(np.zeros(100, np.float32), "w")]).SerializeToString()
    for size in range(1, len(whole)):
        with pytest.raises(LoadError):
            read_onnx(whole[:size])
