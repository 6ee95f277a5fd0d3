"""Write a decoder as an ONNX graph of standard operators (opset 23) that onnxruntime runs, ternary weights in two bits.

Inputs and outputs are named as optimum and onnxruntime-genai name them: input_ids, attention_mask, position_ids,
past_key_values.N.{key,value}; logits, present.N.{key,value}.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import MissingExtra, UsageError
from ternrun.files import replacing
from ternrun.loader.architectures.assemble import vector
from ternrun.loader.quants.table import decode, trits
from ternrun.runtime.config import ModelConfig, RopeConfig
from ternrun.runtime.encodings import ENCODINGS
from ternrun.runtime.weights import Tensor, Weights

FORMS = ("matmulnbits", "int2", "dense")
_OPSETS = {"matmulnbits": 23, "dense": 23, "int2": 25}
_IR = {"matmulnbits": 11, "dense": 11, "int2": 13}
_MAX_BYTES = 1 << 31  # of a protobuf file


def write_onnx(path: Path, weights: Weights, form: str) -> None:
    """Write `weights` with its ternary projections as MatMulNBits of 2 bits, INT2 or floats (FORMS).

    Raises UsageError for a model or a form that this cannot write, MissingExtra without the onnx package.
    """
    try:
        import onnx
    except ImportError as e:
        raise MissingExtra("writing ONNX files", "onnx") from e
    if form not in FORMS:
        raise UsageError(f"{form!r} is not a form of ONNX weights; these are: {', '.join(FORMS)}")
    config = weights.config
    plain = config.rope.scaling == "none" and not config.rope.local_base and config.rope.attention_factor == 1
    odd = config.mhc_streams > 1 or config.sliding_window or config.logit_softcap or not plain
    if odd or any(name.endswith((".bias", "_norm_in.weight")) or "post_" in name for name in weights.tensors):
        raise UsageError(
            "a model with residual streams, sliding windows, biases or further norms has no ONNX form here"
        )
    model = _Writer(onnx, weights, form).model()
    if model.ByteSize() >= _MAX_BYTES:
        raise UsageError("the model is larger than one ONNX file can be; write it as GGUF")
    with replacing(path) as beside:
        beside.write_bytes(model.SerializeToString())


class _Writer:
    def __init__(self, onnx: Any, weights: Weights, form: str) -> None:
        self.onnx, self.form = onnx, form
        self.config: ModelConfig = weights.config
        self.tensors = weights.tensors
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def model(self) -> Any:
        """The ModelProto."""
        helper, config = self.onnx.helper, self.config
        self._angles(config.rope)
        mask = self._mask()
        x = self._embedding()
        for n in range(config.n_layers):
            x = self._layer(n, x, mask)
        x = self._norm("output_norm", x)
        table = "output.weight" if "output.weight" in self.tensors else "token_embd.weight"
        self._add("MatMul", [x, self._turned(table)], "logits")
        graph = helper.make_graph(self.nodes, config.architecture, *self._ends(), self.initializers)
        domains = {"": _OPSETS[self.form]} | ({"com.microsoft": 1} if self.form == "matmulnbits" else {})
        opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
        return helper.make_model(graph, opset_imports=opsets, producer_name="ternrun", ir_version=_IR[self.form])

    def _ends(self) -> tuple[list[Any], list[Any]]:
        make, kinds, c = self.onnx.helper.make_tensor_value_info, self.onnx.TensorProto, self.config
        inputs = [
            make("input_ids", kinds.INT64, ["batch", "sequence"]),
            make("attention_mask", kinds.INT64, ["batch", "total"]),
            make("position_ids", kinds.INT64, ["batch", "sequence"]),
        ]  # fmt: skip
        outputs = [make("logits", kinds.FLOAT, ["batch", "sequence", c.vocab_size])]
        for n in range(c.n_layers):
            for kind in ("key", "value"):
                shape = ["batch", c.n_kv_heads, "past", c.head_dim]
                inputs.append(make(f"past_key_values.{n}.{kind}", kinds.FLOAT, shape))
                outputs.append(make(f"present.{n}.{kind}", kinds.FLOAT, ["batch", c.n_kv_heads, "total", c.head_dim]))
        return inputs, outputs

    def _add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(op, list(inputs), [output], name=f"{output}/{op}", **attributes))
        return output

    def _constant(self, name: str, values: Any) -> str:
        self.initializers.append(self.onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def _angles(self, rope: RopeConfig) -> None:
        factors = np.array(rope.frequency_factors or 1.0)
        steps = rope.base ** -(np.arange(0, rope.dim, 2) / rope.dim) / factors
        turned = np.arange(self.config.context_length)[:, None] * steps
        self._constant("cos", np.cos(turned).astype(np.float32))
        self._constant("sin", np.sin(turned).astype(np.float32))

    def _mask(self) -> str:
        """(batch, 1, new, total), true for keys up to a token's own position that are not padding."""
        for name, value in (("zero", 0), ("one", 1)):
            self._constant(name, np.int64(value))
        for name, axes in (("axes_1_2", [1, 2]), ("axes_1_3", [1, 3])):
            self._constant(name, np.array(axes, np.int64))
        shape = self._add("Shape", ["attention_mask"], "mask/shape")
        total = self._add("Gather", [shape, "one"], "mask/total")
        keys = self._add("Range", ["zero", total, "one"], "mask/keys")
        rows = self._add("Unsqueeze", ["position_ids", "axes_1_3"], "mask/rows")
        causal = self._add("LessOrEqual", [keys, rows], "mask/causal")
        real = self._add("Cast", ["attention_mask"], "mask/real", to=self.onnx.TensorProto.BOOL)
        real = self._add("Unsqueeze", [real, "axes_1_2"], "mask/columns")
        return self._add("And", [causal, real], "mask")

    def _embedding(self) -> str:
        name = self._table("token_embd.weight")
        x = self._add("Gather", [name, "input_ids"], "embedding")
        if self.config.embedding_scale != 1.0:
            scale = self._constant("embedding_scale", np.float32(self.config.embedding_scale))
            x = self._add("Mul", [x, scale], "embedding/scaled")
        return x

    def _table(self, name: str) -> str:
        """An embedding or head as floats: fp16 is stored as such, and cast."""
        tensor = self.tensors[name]
        values = decode(tensor.type, tensor.data, tensor.shape) * np.float32(tensor.scale)
        if tensor.type != "F16":
            return self._constant(name, values)
        return self._add("Cast", [self._constant(name, values.astype(np.float16))], f"{name}/float", to=1)

    def _turned(self, name: str) -> str:
        made = f"{name}/float" if self.tensors[name].type == "F16" else name
        if name == "output.weight":
            made = self._table(name)
        return self._add("Transpose", [made], f"{name}/turned", perm=[1, 0])

    def _norm(self, name: str, x: str) -> str:
        weight = self._constant(f"{name}.weight", vector(self.tensors[f"{name}.weight"]))
        return self._add("RMSNormalization", [x, weight], name, epsilon=self.config.norm_eps, axis=-1)

    def _layer(self, n: int, x: str, mask: str) -> str:
        p = f"blk.{n}."
        normed = self._norm(p + "attn_norm", x)
        q, k, v = (self._linear(p + name, normed) for name in ("attn_q", "attn_k", "attn_v"))
        q, k = (
            self._rotated(p + "attn_q", q, self.config.n_heads),
            self._rotated(p + "attn_k", k, self.config.n_kv_heads),
        )
        x = self._sum(p + "attention", x, self._sub(p, "attn_output", self._attention(n, q, k, v, mask)))
        normed = self._norm(p + "ffn_norm", x)
        gate, up = (self._linear(p + name, normed) for name in ("ffn_gate", "ffn_up"))
        active = self._add("Mul", [self._active(p + "gate", gate), up], p + "gated")
        return self._sum(p + "ffn", x, self._sub(p, "ffn_down", active))

    def _sub(self, p: str, name: str, x: str) -> str:
        """A projection back into the residual stream, after its sub-norm if the layer has one."""
        norm = f"{p}{name.split('_')[0]}_sub_norm"
        return self._linear(p + name, self._norm(norm, x) if f"{norm}.weight" in self.tensors else x)

    def _sum(self, name: str, a: str, b: str) -> str:
        return self._add("Add", [a, b], f"{name}/sum")

    def _rotated(self, name: str, x: str, heads: int) -> str:
        if f"{name}_norm.weight" in self.tensors:
            apart = self._constant(f"{name}/heads", np.array([0, 0, heads, -1], np.int64))
            x = self._norm(f"{name}_norm", self._add("Reshape", [x, apart], f"{name}/apart"))
            joined = self._constant(f"{name}/joined", np.array([0, 0, -1], np.int64))
            x = self._add("Reshape", [x, joined], f"{name}/together")
        rope = self.config.rope
        part = rope.dim if rope.dim != self.config.head_dim else 0
        return self._add(
            "RotaryEmbedding", [x, "cos", "sin", "position_ids"], f"{name}/rotated", num_heads=heads,
            interleaved=int(rope.style == "norm"), rotary_embedding_dim=part,
        )  # fmt: skip

    def _attention(self, n: int, q: str, k: str, v: str, mask: str) -> str:
        out = f"blk.{n}.attention"
        past = [f"past_key_values.{n}.{kind}" for kind in ("key", "value")]
        present = [f"present.{n}.{kind}" for kind in ("key", "value")]
        node = self.onnx.helper.make_node(
            "Attention", [q, k, v, mask, *past], [out, *present], name=f"{out}/Attention", scale=self.config.scale,
            q_num_heads=self.config.n_heads, kv_num_heads=self.config.n_kv_heads,
        )  # fmt: skip
        self.nodes.append(node)
        return out

    def _active(self, name: str, x: str) -> str:
        match self.config.activation:
            case "silu":
                return self._add("Mul", [x, self._add("Sigmoid", [x], f"{name}/sigmoid")], f"{name}/silu")
            case "gelu":
                return self._add("Gelu", [x], f"{name}/gelu", approximate="tanh")
        relu = self._add("Relu", [x], f"{name}/relu")
        return self._add("Mul", [relu, relu], f"{name}/relu2")

    def _linear(self, name: str, x: str) -> str:
        tensor = self.tensors[f"{name}.weight"]
        if self.form == "dense" or ENCODINGS[tensor.type].kind != "ternary":
            dense = decode(tensor.type, tensor.data, tensor.shape) * np.float32(tensor.scale)
            weight = self._constant(f"{name}.weight", np.ascontiguousarray(dense.T))
            return self._add("MatMul", [x, weight], name)
        codes, scales = _trits(tensor)
        if self.form == "int2":
            return self._int2(name, x, codes, scales)
        return self._two_bits(name, x, codes, scales)

    def _two_bits(self, name: str, x: str, codes: NDArray[np.int8], scales: NDArray[np.float32]) -> str:
        """com.microsoft.MatMulNBits: code + 1 in two bits, zero point 1."""
        rows, cols = codes.shape
        block = next((b for b in (128, 64, 32, 16) if cols % b == 0 and cols // scales.shape[1] % b == 0), 0)
        if not block:
            raise UsageError(
                f"tensor '{name}.weight' of {cols} columns does not divide into blocks of 16; write it dense"
            )
        blocks = cols // block
        spread = np.repeat(np.broadcast_to(scales, (rows, scales.shape[1])), blocks // scales.shape[1], axis=1)
        zeros = np.zeros((rows, -(-blocks // 4) * 4), np.uint8)
        zeros[:, :blocks] = 1
        parts = [
            self._constant(f"{name}.weight", _packed(codes + 1).reshape(rows, blocks, block // 4)),
            self._constant(f"{name}.scales", np.ascontiguousarray(spread, np.float32)),
            self._constant(f"{name}.zeros", _packed(zeros)),
        ]
        return self._add(
            "MatMulNBits", [x, *parts], name, domain="com.microsoft", K=cols, N=rows, bits=2, block_size=block
        )

    def _int2(self, name: str, x: str, codes: NDArray[np.int8], scales: NDArray[np.float32]) -> str:
        """An INT2 initializer through DequantizeLinear."""
        proto = self.onnx.TensorProto
        raw = _packed(codes & 3).tobytes()
        self.initializers.append(proto(name=f"{name}.weight", dims=codes.shape, data_type=proto.INT2, raw_data=raw))
        attributes = (
            {"axis": 0} if scales.shape[1] == 1 else {"axis": 1, "block_size": codes.shape[1] // scales.shape[1]}
        )
        values = scales.reshape(-1) if scales.shape[1] == 1 else np.broadcast_to(scales, (len(codes), scales.shape[1]))
        scale = self._constant(f"{name}.scale", values[0] if values.size == 1 else np.ascontiguousarray(values))
        dense = self._add("DequantizeLinear", [f"{name}.weight", scale], f"{name}/float", **attributes)
        return self._add("MatMul", [x, self._add("Transpose", [dense], f"{name}/turned", perm=[1, 0])], name)


def _trits(tensor: Tensor) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Trits and scales; equal scales are joined to one for all, or one a row."""
    codes, scales = trits(tensor.type, tensor.data, tensor.shape, name=tensor.name)
    scales = scales * np.float32(tensor.scale)
    if (scales == scales[:, :1]).all():
        scales = scales[:, :1]
    return codes, scales[:1] if scales.shape[1] == 1 and (scales == scales[0]).all() else scales


def _packed(codes: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers 0 to 3, four to a byte from the low bits up, row after row."""
    fields = codes.astype(np.uint8).reshape(-1, 4)
    packed = fields[:, 0] | fields[:, 1] << 2 | fields[:, 2] << 4 | fields[:, 3] << 6
    return packed.astype(np.uint8).reshape(*codes.shape[:-1], -1)
