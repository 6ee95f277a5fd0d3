"""Convert float16 and bfloat16 vectors to and from float32.

CPUs with F16C convert in one instruction (vcvtph2ps, vcvtps2ph). Elsewhere LLVM would call a library routine that the
process does not have, so the portable versions use integer arithmetic. Both round to nearest even and keep infinities;
NaN stays NaN.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from ternrun.runtime.cpu.compile.arithmetic import where_less
from ternrun.runtime.cpu.compile.isa import build_target
from ternrun.runtime.cpu.compile.jit import compiled
from ternrun.runtime.cpu.compile.lanes import narrow, reinterpret, splat, widen_unsigned, zero
from ternrun.runtime.cpu.compile.memory_access import load, load_scalar
from ternrun.runtime.cpu.compile.vectors import f16x16, f32x16, i16x16, i32x16, pointer, splat_lane


@intrinsic
def _extend(typingctx: Any, value: Any) -> Any:
    """f16x16 -> f32x16."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fpext(args[0], f32x16.llvm)

    return f32x16(f16x16), codegen


@intrinsic
def _truncate(typingctx: Any, value: Any) -> Any:
    """f32x16 -> f16x16, rounded to nearest even."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fptrunc(args[0], f16x16.llvm)

    return f16x16(f32x16), codegen


@compiled
def _native_load(address: int) -> Any:
    """Load sixteen float16 as f32x16 with F16C."""
    return _extend(load(f16x16, address))


@compiled
def _native_bits(value: Any) -> Any:
    """The float16 bit patterns of an f32x16 with F16C."""
    return reinterpret(i16x16, _truncate(value))


@compiled
def _portable_load(address: int) -> Any:
    """Load sixteen float16 as f32x16 with integer arithmetic."""
    half = widen_unsigned(i32x16, load(i16x16, address))
    body = (half & 0x7FFF) << 13
    # A float with the half's exponent is 2**112 too small. The product also converts subnormals correctly.
    scaled = reinterpret(f32x16, body) * reinterpret(f32x16, splat(i32x16, types.int64(0x77800000)))
    special = where_less(
        splat(i32x16, types.int64(0x0F7FFFFF)), body, splat(i32x16, types.int64(0x7F800000)), zero(i32x16)
    )
    return reinterpret(f32x16, reinterpret(i32x16, scaled) | special | ((half & 0x8000) << 16))


@compiled
def _portable_bits(value: Any) -> Any:
    """The float16 bit patterns of an f32x16 with integer arithmetic."""
    bits = reinterpret(i32x16, value)
    sign = (bits >> 16) & 0x8000
    body = bits & 0x7FFFFFFF
    # Normal numbers: rebias the exponent, and round to nearest even by adding 0xfff and the last kept bit.
    normal = (body - 0x38000000 + 0xFFF + ((body >> 13) & 1)) >> 13
    # Subnormal numbers: adding 0.5 leaves the rounded half in the low bits.
    magic = splat(i32x16, types.int64(0x3F000000))
    tiny = reinterpret(i32x16, reinterpret(f32x16, body) + reinterpret(f32x16, magic)) - magic
    finite = where_less(body, splat(i32x16, types.int64(0x38800000)), tiny, normal)
    infinite = splat(i32x16, types.int64(0x7C00))
    large = where_less(splat(i32x16, types.int64(0x7F800000)), body, splat(i32x16, types.int64(0x7E00)), infinite)
    out = where_less(body, splat(i32x16, types.int64(0x477FF000)), finite, large)
    return narrow(i16x16, out | sign)


@compiled
def load_bf16(address: int) -> Any:
    """Load sixteen bfloat16 from an address as f32x16."""
    return reinterpret(f32x16, widen_unsigned(i32x16, load(i16x16, address)) << 16)


#: Load sixteen float16 from an address as f32x16.
load_f16 = _portable_load if build_target() == "portable" else _native_load
#: Round an f32x16 to float16; returns the bit patterns (i16x16).
f16_bits = _portable_bits if build_target() == "portable" else _native_bits


@intrinsic
def float_of_bits(typingctx: Any, bits: Any) -> Any:
    """The float32 with the low 32 bits of an int64."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(builder.trunc(args[0], i32x16.scalar), f32x16.scalar)

    return types.float32(types.int64), codegen


@compiled
def _portable_scalar(address: int) -> Any:
    """Load one float16 from an address as float32 with integer arithmetic."""
    half = types.int64(load_scalar(types.uint16, address))
    scaled = float_of_bits((half & 0x7FFF) << 13) * float_of_bits(types.int64(0x77800000))
    if half & 0x7C00 == 0x7C00:
        scaled = float_of_bits(types.int64(0x7F800000) | (half & 0x3FF) << 13)
    return -scaled if half & 0x8000 else scaled


@intrinsic
def _native_splat(typingctx: Any, address: Any) -> Any:
    """Load one float16 from an address into all lanes of an f32x16 with F16C."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        half = builder.load(pointer(builder, args[0], f16x16.scalar), align=1)
        return builder.fpext(splat_lane(builder, f16x16, half), f32x16.llvm)

    return f32x16(types.int64), codegen


@compiled
def _portable_splat(address: int) -> Any:
    """Load one float16 from an address into all lanes of an f32x16 with integer arithmetic."""
    return splat(f32x16, _portable_scalar(address))


#: Load one float16 from an address into all lanes of an f32x16. The vector form avoids a false dependency: a scalar
#: conversion keeps the upper part of its destination register, so each block could wait for the previous one.
splat_f16 = _portable_splat if build_target() == "portable" else _native_splat
