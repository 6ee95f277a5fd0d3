"""Half and bfloat16 vectors to and from float32.

CPUs with F16C convert in one instruction; elsewhere LLVM would call a library routine that a bare process does not
have, so `portable` does it with integers. Both round to nearest even and keep infinities; NaN stays NaN.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from ternrun.runtime.cpu.compile import simd
from ternrun.runtime.cpu.compile.isa import build_target
from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.simd import (
    f16x16,
    f32x16,
    i16x16,
    i32x16,
    load,
    narrow,
    reinterpret,
    splat,
    widen_unsigned,
)


@intrinsic
def _extend(typingctx: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fpext(args[0], f32x16.llvm)

    return f32x16(f16x16), codegen


@intrinsic
def _truncate(typingctx: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fptrunc(args[0], f16x16.llvm)

    return f16x16(f32x16), codegen


@compiled
def _native_load(address: int) -> Any:
    return _extend(load(f16x16, address))


@compiled
def _native_bits(value: Any) -> Any:
    return reinterpret(i16x16, _truncate(value))


@compiled
def _portable_load(address: int) -> Any:
    half = widen_unsigned(i32x16, load(i16x16, address))
    body = (half & 0x7FFF) << 13
    # a float with the half's exponent is 2**112 too small; the product also mends subnormals
    scaled = reinterpret(f32x16, body) * reinterpret(f32x16, splat(i32x16, types.int64(0x77800000)))
    special = simd.where_less(
        splat(i32x16, types.int64(0x0F7FFFFF)), body, splat(i32x16, types.int64(0x7F800000)), simd.zero(i32x16)
    )
    return reinterpret(f32x16, reinterpret(i32x16, scaled) | special | ((half & 0x8000) << 16))


@compiled
def _portable_bits(value: Any) -> Any:
    bits = reinterpret(i32x16, value)
    sign = (bits >> 16) & 0x8000
    body = bits & 0x7FFFFFFF
    # normal: rebias the exponent and round to nearest even by adding 0xfff and the last kept bit
    normal = (body - 0x38000000 + 0xFFF + ((body >> 13) & 1)) >> 13
    # subnormal: adding 0.5 leaves the rounded half in the low bits
    magic = splat(i32x16, types.int64(0x3F000000))
    tiny = reinterpret(i32x16, reinterpret(f32x16, body) + reinterpret(f32x16, magic)) - magic
    finite = simd.where_less(body, splat(i32x16, types.int64(0x38800000)), tiny, normal)
    infinite = splat(i32x16, types.int64(0x7C00))
    large = simd.where_less(splat(i32x16, types.int64(0x7F800000)), body, splat(i32x16, types.int64(0x7E00)), infinite)
    out = simd.where_less(body, splat(i32x16, types.int64(0x477FF000)), finite, large)
    return narrow(i16x16, out | sign)


@compiled
def load_bf16(address: int) -> Any:
    """Sixteen bfloat16 at an address, as f32x16."""
    return reinterpret(f32x16, widen_unsigned(i32x16, load(i16x16, address)) << 16)


#: Sixteen float16 at an address, as f32x16.
load_f16 = _portable_load if build_target() == "portable" else _native_load
#: f32x16 rounded to float16, as the sixteen bit patterns (i16x16).
f16_bits = _portable_bits if build_target() == "portable" else _native_bits


@intrinsic
def float_of_bits(typingctx: Any, bits: Any) -> Any:
    """The float32 with these 32 bits."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(builder.trunc(args[0], i32x16.scalar), f32x16.scalar)

    return types.float32(types.int64), codegen


@compiled
def _portable_scalar(address: int) -> Any:
    half = types.int64(simd.load_scalar(types.uint16, address))
    scaled = float_of_bits((half & 0x7FFF) << 13) * float_of_bits(types.int64(0x77800000))
    if half & 0x7C00 == 0x7C00:
        scaled = float_of_bits(types.int64(0x7F800000) | (half & 0x3FF) << 13)
    return -scaled if half & 0x8000 else scaled


@intrinsic
def _native_splat(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        half = builder.load(simd.pointer(builder, args[0], f16x16.scalar), align=1)
        return builder.fpext(simd.splat_lane(builder, f16x16, half), f32x16.llvm)

    return f32x16(types.int64), codegen


@compiled
def _portable_splat(address: int) -> Any:
    return splat(f32x16, _portable_scalar(address))


#: One float16 at an address in all lanes of an f32x16. A scalar one is put into a register that still holds something:
#: where LLVM picks that register unluckily, each block waits for the last.
splat_f16 = _portable_splat if build_target() == "portable" else _native_splat
