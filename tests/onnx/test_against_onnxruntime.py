"""Single nodes beside onnxruntime: above all the operators of its own domain, which only it defines."""

import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ternrun.onnx.backend import prepare
from ternrun.onnx.operators.attention import attend

MS = "com.microsoft"
rng = np.random.default_rng(7)


def f(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def i(low: int, high: int, *shape: int, dtype: Any = np.int64) -> np.ndarray:
    return rng.integers(low, high, shape).astype(dtype)


def model_of(
    op: str, inputs: list[np.ndarray | None], domain: str, outputs: int, constants: tuple[int, ...], opset: int,
    attributes: dict[str, Any],
) -> onnx.ModelProto:  # fmt: skip
    names = ["" if x is None else f"x{n}" for n, x in enumerate(inputs)]
    infos, weights = [], []
    for n, x in enumerate(inputs):
        if x is None:
            continue
        if n in constants:
            weights.append(numpy_helper.from_array(x, names[n]))
        else:
            infos.append(helper.make_tensor_value_info(names[n], helper.np_dtype_to_tensor_dtype(x.dtype), x.shape))
    node = helper.make_node(op, names, [f"y{n}" for n in range(outputs)], name="node", domain=domain, **attributes)
    results = [onnx.ValueInfoProto(name=f"y{n}") for n in range(outputs)]
    graph = helper.make_graph([node], "one", infos, results, weights)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def compare(
    op: str, inputs: list[np.ndarray | None], domain: str = "", outputs: int = 1, constants: tuple[int, ...] = (),
    opset: int = 21, tolerance: float = 2e-5, only: int | None = None, **attributes: Any,
) -> None:  # fmt: skip
    model = model_of(op, inputs, domain, outputs, constants, opset, attributes)
    feeds = {f"x{n}": x for n, x in enumerate(inputs) if x is not None and n not in constants}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"]).run(
            None, feeds
        )
    ours = prepare(model).run(feeds)
    for a, b in list(zip(ours, theirs, strict=True))[:only]:
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=tolerance * 10, atol=tolerance)
        else:
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("op", ["Gelu", "QuickGelu", "FastGelu"])
def test_activations(op):
    compare(op, [f(3, 40_000, scale=3)], MS)


@pytest.mark.parametrize("op", ["BiasGelu", "FastGelu"])
def test_activations_with_bias(op):
    compare(op, [f(2, 5, 64), f(64)], MS)


@pytest.mark.parametrize("op", ["Erf", "Sigmoid", "Tanh", "Softplus", "Exp"])
def test_functions_over_their_whole_range(op):
    compare(op, [np.linspace(-12, 12, 100_001).astype(np.float32)], tolerance=1e-6)


@pytest.mark.parametrize("a", ["Mul", "Div", "Add", "Sub", "Pow"])
def test_arithmetic_of_integers(a):
    x, y = i(-9, 10, 5, 7), i(1, 5, 7)
    compare(a, [x, -y if a == "Div" else y])


def test_softmax_normalisations():
    x = f(2, 3, 96, scale=4)
    compare("Softmax", [x])
    compare("Softmax", [x], axis=1)
    compare("Softmax", [x], opset=11, axis=1)
    compare("LayerNormalization", [x, f(96), f(96)], outputs=3)
    compare("LayerNormalization", [x, f(3, 96)], axis=1)
    compare("SimplifiedLayerNormalization", [x, f(96)], outputs=2, epsilon=1e-6)
    compare("SkipLayerNormalization", [x, f(2, 3, 96), f(96), f(96), f(96)], MS, outputs=4, only=1)
    compare("SkipLayerNormalization", [x, f(2, 3, 96), f(96)], MS)
    compare("SkipSimplifiedLayerNormalization", [x, f(2, 3, 96), f(96)], MS, outputs=1, epsilon=1e-6)
    model = [x, f(2, 3, 96), f(96), f(96)]
    compare("SkipSimplifiedLayerNormalization", model, MS, epsilon=1e-6)


def test_embeddings_of_bert():
    ids, kinds, mask = i(0, 50, 2, 6, dtype=np.int32), i(0, 2, 2, 6, dtype=np.int32), i(0, 2, 2, 6, dtype=np.int32)
    inputs = [ids, kinds, f(50, 16), f(32, 16), f(2, 16), f(16), f(16), mask]
    compare("EmbedLayerNormalization", inputs, MS, outputs=2)
    compare("EmbedLayerNormalization", [ids, None, f(50, 16), f(32, 16), None, f(16), f(16)], MS, outputs=2)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary(interleaved):
    cos, sin = f(40, 8), f(40, 8)
    for x in (f(2, 5, 3 * 16), f(2, 3, 5, 16)):
        for positions in (i(0, 40, 2, 5), np.array([3], np.int64)):
            compare("RotaryEmbedding", [x, positions, cos, sin], MS, interleaved=interleaved)
    compare(
        "RotaryEmbedding", [f(2, 5, 3 * 32), i(0, 40, 2, 5), cos, sin], MS, interleaved=interleaved, num_heads=3,
        rotary_embedding_dim=16,
    )  # fmt: skip
    compare("RotaryEmbedding", [f(2, 3, 5, 16), cos, sin, i(0, 40, 2, 5)], opset=23, interleaved=interleaved)


def gqa(lengths: list[int], past: int, tokens: int, **attributes: Any) -> None:
    b, h, g, d = len(lengths), 4, 2, 16
    total = max(lengths)
    cache = [f(b, g, past, d), f(b, g, past, d)]
    tables = [f(64, d // 2), f(64, d // 2)] if attributes.get("do_rotary") else [None, None]
    compare(
        "GroupQueryAttention",
        [f(b, tokens, h * d), f(b, tokens, g * d), f(b, tokens, g * d), *cache,
         np.array(lengths, np.int32) - 1, np.array(total, np.int32), *tables],
        MS, outputs=3, num_heads=h, kv_num_heads=g, **attributes,
    )  # fmt: skip


@pytest.mark.parametrize("do_rotary", [0, 1])
@pytest.mark.parametrize(
    ("lengths", "past", "tokens"),
    [([7], 0, 7), ([7, 7], 0, 7), ([9], 8, 1), ([9, 9], 8, 1), ([12], 8, 4), ([33], 32, 1), ([50], 0, 50)],
)
def test_group_query_attention(lengths, past, tokens, do_rotary):
    gqa(lengths, past, tokens, do_rotary=do_rotary)
    gqa(lengths, past, tokens, do_rotary=do_rotary, local_window_size=3)
    gqa(lengths, past, tokens, do_rotary=do_rotary, scale=0.3, softcap=5.0)
    gqa(lengths, past, tokens, do_rotary=do_rotary, rotary_interleaved=1)


def test_group_query_attention_of_sequences_that_differ_in_length():
    gqa([9, 5], 8, 1, only=1)  # in its cache, onnxruntime leaves what stands behind the shorter one as it was


@pytest.mark.parametrize("keys", [3, 40])  # numpy's softmax, and that of the engine's threads
def test_a_query_that_may_look_at_nothing_gets_zeros(keys):
    q, k, v, bias = f(1, 2, 60, 8), f(1, 2, keys, 8), f(1, 2, keys, 8), np.zeros((60, keys), np.float32)
    bias[7] = -np.inf
    out = attend(q, k, v, 1.0, bias)
    assert not out[:, :, 7].any()
    weights = np.exp(q @ k.swapaxes(2, 3))
    np.testing.assert_allclose(out[:, :, 8], (weights / weights.sum(-1, keepdims=True) @ v)[:, :, 8], rtol=1e-4)


def test_group_query_attention_packed():
    h, g, d = 4, 2, 16
    qkv = f(2, 6, (h + 2 * g) * d)
    inputs = [qkv, None, None, f(2, g, 0, d), f(2, g, 0, d), np.array([5, 5], np.int32), np.array(6, np.int32),
              f(32, 8), f(32, 8)]  # fmt: skip
    compare("GroupQueryAttention", inputs, MS, outputs=3, num_heads=h, kv_num_heads=g, do_rotary=1)


def test_multi_head_attention():
    q, k, v = f(2, 5, 64), f(2, 7, 64), f(2, 7, 64)
    compare("MultiHeadAttention", [q, k, v], MS, num_heads=4)
    compare("MultiHeadAttention", [q, k, v, f(192)], MS, num_heads=4, scale=0.2)
    mask = i(0, 2, 2, 7, dtype=np.int32)
    mask[:, 0] = 1
    compare("MultiHeadAttention", [q, k, v, None, mask], MS, num_heads=4)
    compare("MultiHeadAttention", [q, k, v, None, None, f(2, 4, 5, 7)], MS, num_heads=4)
    compare(
        "MultiHeadAttention", [f(2, 5, 64), f(2, 5, 64), f(2, 5, 64), None, None, None, f(2, 4, 3, 16), f(2, 4, 3, 16)],
        MS, outputs=3, num_heads=4, unidirectional=1,
    )  # fmt: skip


def test_attention_with_its_projection():
    x, w, b = f(2, 5, 32, scale=0.3), f(32, 96, scale=0.3), f(96)
    compare("Attention", [x, w, b], MS, num_heads=4)
    compare("Attention", [x, w, b], MS, num_heads=4, unidirectional=1)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32)
    compare("Attention", [x, w, b, mask], MS, num_heads=4)
    compare("Attention", [x, w, b, np.array([5, 3], np.int32)], MS, num_heads=4)
    past = f(2, 2, 4, 3, 8)
    compare("Attention", [x, w, b, None, past], MS, outputs=2, num_heads=4, unidirectional=1)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero", ["none", "packed", "float"])
def test_matmul_nbits(bits, zero):
    n, k, block = 12, 70, 32
    blocks = -(-k // block)
    b = i(0, 256, n, blocks, block * bits // 8, dtype=np.uint8)
    scales = np.abs(f(n, blocks)) + 0.1
    points = {"none": None, "packed": i(0, 256, n, -(-blocks * bits // 8), dtype=np.uint8), "float": f(n, blocks)}
    if zero == "float" and bits != 4:
        pytest.skip("onnxruntime's CPU kernel takes float zero points of 4 bits only")
    inputs = [f(3, 2, k), b, scales, points[zero]]
    compare("MatMulNBits", inputs, MS, constants=(1, 2, 3), tolerance=2e-3, K=k, N=n, bits=bits, block_size=block)


@pytest.mark.parametrize("kind", [TensorProto.UINT4, TensorProto.INT4, TensorProto.UINT8])
@pytest.mark.parametrize("with_zero", [False, True])
def test_gather_block_quantized(kind, with_zero):
    import ml_dtypes

    rows, columns, block = 10, 64, 32
    types = {TensorProto.UINT4: ml_dtypes.uint4, TensorProto.INT4: ml_dtypes.int4, TensorProto.UINT8: np.uint8}
    if kind == TensorProto.UINT8:
        data, zero = i(0, 256, rows, columns // 2, dtype=np.uint8), i(0, 256, rows, 1, dtype=np.uint8)
    else:
        low = -8 if kind == TensorProto.INT4 else 0
        data = i(low, low + 16, rows, columns).astype(types[kind])
        zero = i(low, low + 16, rows, columns // block).astype(types[kind])
    compare(
        "GatherBlockQuantized", [data, i(0, rows, 2, 3), f(rows, columns // block), zero if with_zero else None], MS,
        constants=(0, 2, 3), gather_axis=0, quantize_axis=1, block_size=block,
    )  # fmt: skip


def test_fused_products():
    compare("FusedMatMul", [f(2, 3, 4), f(2, 4, 5)], MS, alpha=0.5)
    compare("FusedMatMul", [f(2, 4, 3), f(2, 5, 4)], MS, transA=1, transB=1)
    compare("Gemm", [f(3, 4), f(5, 4), f(5)], transB=1, alpha=0.5, beta=2.0)
    # 7-bit weights: without VNNI, onnxruntime adds pairs of products in int16, which saturates with 8 bits
    a, b = i(0, 256, 6, 64, dtype=np.uint8), i(-64, 64, 64, 9, dtype=np.int8)
    compare("MatMulInteger", [a, b, np.array(120, np.uint8), np.array(3, np.int8)])
    scales = [np.array(0.02, np.float32), np.abs(f(9))]
    zeros = [np.array(120, np.uint8), np.zeros(9, np.int8)]
    compare("MatMulIntegerToFloat", [a, b, *scales, *zeros, f(9)], MS)
    compare("DynamicQuantizeMatMul", [f(6, 64), b, np.abs(f(9)), None, f(9)], MS, tolerance=1e-3)
    compare("DynamicQuantizeLinear", [f(7, 33, scale=5)], outputs=3)


def test_integer_products_of_eight_bits_are_exact():
    a, b = i(0, 256, 6, 64, dtype=np.uint8), i(-128, 128, 64, 9, dtype=np.int8)
    model = model_of("MatMulInteger", [a, b, np.array(120, np.uint8), np.array(3, np.int8)], "", 1, (), 21, {})
    (found,) = prepare(model).run({"x0": a, "x1": b, "x2": np.array(120, np.uint8), "x3": np.array(3, np.int8)})
    np.testing.assert_array_equal(found, (a.astype(np.int32) - 120) @ (b.astype(np.int32) - 3))


@pytest.mark.parametrize("group", [1, 2, 6])
def test_conv(group):
    compare(
        "Conv", [f(2, 6, 17, 13), f(12, 6 // group, 3, 3), f(12)], group=group, strides=[2, 1], pads=[1, 0, 2, 1],
        dilations=[1, 2],
    )  # fmt: skip
    compare("Conv", [f(2, 6, 17), f(12, 6 // group, 5)], group=group, auto_pad="SAME_UPPER", strides=[2])


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("ceil_mode", [0, 1])
def test_pools(op, ceil_mode):
    extra = {} if op == "MaxPool" else {"count_include_pad": 1}
    for attributes in ({}, extra):
        compare(
            op, [f(2, 3, 16, 15)], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=ceil_mode,
            **attributes,
        )  # fmt: skip


def test_indices_and_shapes():
    compare("Gather", [f(5, 6, 7), i(-6, 6, 2, 3)], axis=1)
    compare("GatherElements", [f(5, 6), i(-5, 5, 3, 6)], axis=0)
    compare("GatherND", [f(2, 3, 4, 5), i(0, 3, 2, 6, 2)], batch_dims=1)
    compare("ScatterND", [f(6, 4), i(-6, 6, 3, 1), f(3, 4)])
    compare("ScatterElements", [f(6, 4), i(-6, 6, 3, 4), f(3, 4)], reduction="add", axis=0)
    compare("OneHot", [i(-4, 6, 3, 2), np.array(5, np.int64), f(2)], axis=1)
    compare("Slice", [f(6, 7), *(np.array(v, np.int64) for v in ([5, -1], [-100, 0], [0, 1], [-2, -1]))])
    compare("Trilu", [f(2, 5, 6), np.array(-1, np.int64)], upper=0)
    compare("Range", [np.array(v, np.float32) for v in (1, 4.2, 0.5)])
    compare("Range", [np.array(v, np.int64) for v in (9, -2, -3)])
    compare("CumSum", [f(4, 5), np.array(1, np.int64)], reverse=1, exclusive=1)


@pytest.mark.parametrize("is_causal", [0, 1])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_attention_of_opset_23(is_causal, kv_heads):
    q, k, v = f(2, 4, 5, 8), f(2, kv_heads, 5, 8), f(2, kv_heads, 5, 8)
    compare("Attention", [q, k, v], opset=23, is_causal=is_causal)
    past = [f(2, kv_heads, 3, 8), f(2, kv_heads, 3, 8)]
    compare("Attention", [q, k, v, f(5, 8), *past], opset=23, outputs=3, is_causal=is_causal, scale=0.25)
