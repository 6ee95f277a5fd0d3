"""Products with quantized weights, and lookups in quantized tables (com.microsoft)."""

from __future__ import annotations

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.format.limits import check_tensor_size
from ternrun.onnx.format.tensors import unpack
from ternrun.onnx.operators.blocks import centered as centered_codes
from ternrun.onnx.operators.blocks import in_blocks
from ternrun.onnx.operators.constant_cache import ConstantCache, read_only
from ternrun.onnx.operators.constant_matmul import LEAST, ConstantMatMul
from ternrun.onnx.operators.gathering import check_indices
from ternrun.onnx.operators.matrices import centered, multiply, multiply_integers
from ternrun.onnx.operators.table import MICROSOFT, Array, Kernel, OpKernelInfo, operator, same_type, upcast_half


class Blocks:
    """Decodes MatMulNBits' weights: B uint8 (N, blocks, bytes of a block), low bits first."""

    def __init__(self, info: OpKernelInfo) -> None:
        self.k, self.n = info.integer("K"), info.integer("N")
        self.bits, self.block = info.integer("bits", 4), info.integer("block_size")
        if self.bits not in (2, 4, 8) or not 16 <= self.block <= 1 << 16 or self.block & self.block - 1:
            raise LoadError(f"has {self.bits} bits and blocks of {self.block}: 2, 4 or 8 bits, a power of two from 16")
        if min(self.k, self.n) < 1 or max(self.k, self.n) > 1 << 31:
            raise LoadError(f"has the impossible shape N={self.n}, K={self.k}")
        self.blocks = -(-self.k // self.block)

    def product(self, b: Array, scales: Array, zero: Array | None) -> Kernel:
        """A function x -> x W^T in float32, on the engine's kernels if they have such blocks, otherwise with decoded
        weights.
        """
        codes = self._codes(b, scales)
        if read_only(b, scales, zero) and self.n * self.k >= LEAST and self.k % self.block == 0:
            points = self._zero_points(zero).reshape(-1, self.blocks if zero is not None else 1)
            flat, scale = codes.reshape(self.n, self.k), upcast_half(scales).reshape(self.n, self.blocks)
            packed = in_blocks("weights", flat, centered_codes(flat, points), scale, points, self.bits)
            if packed is not None:
                return ConstantMatMul(packed)
        weights = self._decoded(codes, scales, zero).T
        return lambda x: multiply(upcast_half(x), weights)

    def _codes(self, b: Array, scales: Array) -> Array:
        """The codes (N, blocks, block), one a byte."""
        check_tensor_size((self.n, self.blocks, self.block))
        if b.dtype != np.uint8 or b.size != self.n * self.blocks * self.block * self.bits // 8:
            raise LoadError(f"weights of {b.dtype} {list(b.shape)} are not N={self.n} rows of K={self.k}")
        if scales.size != self.n * self.blocks:
            raise LoadError(f"has {scales.size} scales for {self.n} x {self.blocks} blocks")
        return unpack(b.reshape(self.n, self.blocks, -1), self.bits)

    def _decoded(self, codes: Array, scales: Array, zero: Array | None) -> Array:
        """The weights in float32, (N, K)."""
        weights = codes.astype(np.float32)
        weights -= self._zero_points(zero)
        weights *= upcast_half(scales).reshape(self.n, self.blocks, 1)
        return weights.reshape(self.n, -1)[:, : self.k]

    def _zero_points(self, zero: Array | None) -> Array:
        """The zero points in float32, broadcastable to the codes."""
        if zero is None:
            return np.array(1 << (self.bits - 1), np.float32)
        if zero.dtype == np.uint8:
            row = -(-self.blocks * self.bits // 8)
            if zero.size != self.n * row:
                raise LoadError(f"has {zero.size} bytes of zero points for {self.n} x {self.blocks} blocks")
            zero = unpack(zero.reshape(self.n, row), self.bits)[:, : self.blocks]
        elif zero.size != self.n * self.blocks:
            raise LoadError(f"has {zero.size} zero points for {self.n} x {self.blocks} blocks")
        return zero.reshape(self.n, self.blocks, 1).astype(np.float32)


@operator("MatMulNBits", domains=(MICROSOFT,), fresh=True)
def matmul_nbits(info: OpKernelInfo) -> Kernel:
    """x (..., K) times weights of 2, 4 or 8 bits (N, K). Constant weights are prepared once."""
    blocks = Blocks(info)
    products = ConstantCache(blocks.product)

    def kernel(
        x: Array, b: Array, scales: Array, zero: Array | None = None, groups: Array | None = None,
        bias: Array | None = None,
    ) -> Array:  # fmt: skip
        if groups is not None:
            raise LoadError("has group indices, which are not supported")
        if not x.ndim or x.shape[-1] != blocks.k:
            raise LoadError(f"cannot multiply {list(x.shape)} by weights of K={blocks.k}")
        out: Array = products(b, scales, zero)(x)
        if bias is not None:
            out = out + bias
        return out.astype(x.dtype, copy=False)

    return kernel


@operator("GatherBlockQuantized", domains=(MICROSOFT,), fresh=True)
def gather_block_quantized(info: OpKernelInfo) -> Kernel:
    """Rows of a quantized table. Only the rows that are looked up are decoded."""
    block, bits = info.integer("block_size", 128), info.integer("bits", 4)
    axis, along = info.integer("gather_axis"), info.integer("quantize_axis", 1)
    if bits not in (2, 4, 8) or block < 1:
        raise LoadError(f"has {bits} bits and blocks of {block}, which is not supported")

    def kernel(data: Array, indices: Array, scales: Array, zero: Array | None = None) -> Array:
        last = data.ndim - 1
        if data.ndim != scales.ndim or axis % data.ndim == last or along % data.ndim != last:
            raise LoadError("is quantized along another axis than the last, which is not supported")
        check_tensor_size([indices.size, data.size // max(data.shape[axis], 1), 8 // bits])
        wanted = check_indices(indices)
        codes = _integers(data.take(wanted, axis), bits)
        scale = scales.take(wanted, axis)
        packed = data.dtype == np.uint8
        if zero is not None:
            points = _integers(zero.take(wanted, axis), bits)[..., : scale.shape[-1]]
        else:
            points = np.array(1 << (bits - 1) if packed else 0, np.int16)
        spread = -(-codes.shape[-1] // block)
        if scale.shape[-1] != spread or (points.ndim and points.shape != scale.shape):
            raise LoadError(f"scales of shape {list(scales.shape)} do not fit blocks of {block}")
        size = codes.shape[-1]
        of = np.arange(size) // block
        points = points.take(of, -1) if points.ndim else points
        out: Array = (codes - points) * upcast_half(scale).take(of, -1)
        return out.astype(scales.dtype, copy=False)

    return kernel


def _integers(x: Array, bits: int) -> Array:
    """The integers as int16, one an element. Bytes can hold several, from the low bits up."""
    return (unpack(x, bits) if x.dtype == np.uint8 and bits < 8 else x).astype(np.int16)


@operator("MatMulIntegerToFloat", domains=(MICROSOFT,), fresh=True)
def matmul_integer_to_float(info: OpKernelInfo) -> Kernel:
    """An integer product, scaled, with a bias."""

    def kernel(
        a: Array, b: Array, a_scale: Array, b_scale: Array, a_zero: Array | None = None, b_zero: Array | None = None,
        bias: Array | None = None,
    ) -> Array:  # fmt: skip
        product = multiply_integers(centered(a, a_zero, rows=True), centered(b, b_zero, rows=False))
        out: Array = product.astype(a_scale.dtype) * (a_scale * b_scale)
        return out if bias is None else out + bias

    return kernel


@operator("DynamicQuantizeMatMul", domains=(MICROSOFT,), fresh=True)
def dynamic_quantize_matmul(info: OpKernelInfo) -> Kernel:
    """x is quantized to bytes over its whole range and multiplied."""

    def kernel(x: Array, b: Array, b_scale: Array, b_zero: Array | None = None, bias: Array | None = None) -> Array:
        codes, scale, zero = quantize_dynamically(x)
        product = multiply_integers(centered(codes, zero, rows=True), centered(b, b_zero, rows=False))
        out: Array = product.astype(np.float32) * (scale * b_scale)
        return out if bias is None else out + bias

    return kernel


@operator("DynamicQuantizeLinear", fresh=True)
def dynamic_quantize_linear(info: OpKernelInfo) -> Kernel:
    """Codes, their scale and their zero point."""
    return quantize_dynamically


def quantize_dynamically(x: Array) -> tuple[Array, Array, Array]:
    """uint8 codes of float32 x, and the scale and zero point of a range that includes x and 0."""
    if x.dtype != np.float32:
        raise LoadError(f"takes float32, not {x.dtype}")
    low, high = min(0.0, float(x.min(initial=0))), max(0.0, float(x.max(initial=0)))
    scale = np.float32((np.float32(high) - np.float32(low)) / np.float32(255))
    if not scale > 0:
        return (
            np.zeros(x.shape, np.uint8),
            np.array(scale if scale == 0 else np.nan, np.float32),
            np.zeros((), np.uint8),
        )
    zero = np.clip(np.rint(np.float32(-low) / scale), 0, 255)
    codes = np.clip(np.rint(x / scale) + zero, 0, 255)
    return codes.astype(np.uint8), np.array(scale, np.float32), np.array(zero, np.uint8)


@operator("DequantizeLinear", since=10)
def dequantize_linear(info: OpKernelInfo) -> Kernel | None:
    """(x - zero) * scale for integers of at most 32 bits. The reference runs other types."""
    axis, block = info.integer("axis", 1), info.integer("block_size")
    if "output_dtype" in info.attributes:
        return None

    def kernel(x: Array, scale: Array, zero: Array | None = None) -> Array:
        narrow = x.itemsize == 1 and x.dtype.kind in "iuV" and "float" not in x.dtype.name
        if not (narrow or (x.itemsize == 4 and x.dtype.kind in "iu")) or scale.dtype != np.float32:
            return np.asarray(info.reference()(x, scale, *([] if zero is None else [zero]))[0])
        if zero is not None:
            same_type(x, zero)
        out = x.astype(np.float32)
        for other, function in ((zero, np.subtract), (scale, np.multiply)):
            if other is not None:
                function(out, _spread(other.astype(np.float32), x.shape, axis, block), out=out)
        return out

    return kernel


def _spread(values: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """Scales of the tensor, of an axis or of blocks along it, made broadcastable."""
    if values.size == 1 and not block:
        return values.reshape(())
    if not -len(shape) <= axis < len(shape):
        raise LoadError(f"axis {axis} does not fit {list(shape)}")
    if values.ndim == 1 and not block:
        dims = [1] * len(shape)
        dims[axis] = -1
        return values.reshape(dims)
    size = shape[axis]
    if block < 1 or values.ndim != len(shape) or values.shape[axis] != -(-size // block):
        raise LoadError(f"scales of shape {list(values.shape)} do not fit {list(shape)} in blocks of {block}")
    return values.take(np.arange(size) // block, axis)
