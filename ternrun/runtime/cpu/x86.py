"""Instructions that only some x86 CPUs have, each with the plain meaning a test checks it against.

`multiply_add_bytes` has a portable form of the same integers, so one kernel serves AVX2 and every other CPU.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ternrun.runtime.cpu import simd
from ternrun.runtime.cpu.isa import build_target


def _call(builder: Any, name: str, out: ir.Type, args: list[Any]) -> Any:
    kind = ir.FunctionType(out, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


@intrinsic
def lookup(typingctx: Any, index: Any, table: Any) -> Any:
    """vpermw: lane i is table[index[i] & 31]; both i16x32. AVX-512 BW."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, "llvm.x86.avx512.permvar.hi.512", args[0].type, [args[1], args[0]])

    return simd.i16x32(simd.i16x32, simd.i16x32), codegen


@intrinsic
def add_byte_products(typingctx: Any, unsigned: Any, signed: Any) -> Any:
    """vpmaddubsw: (unsigned i8x64, signed i8x64) -> i16x32, sums of neighbouring products. AVX-512 BW."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, "llvm.x86.avx512.pmaddubs.w.512", simd.i16x32.llvm, list(args))

    return simd.i16x32(simd.i8x64, simd.i8x64), codegen


@intrinsic
def add_products(typingctx: Any, a: Any, b: Any) -> Any:
    """vpmaddwd: (i16x32, i16x32) -> i32x16, sums of neighbouring products. AVX-512 BW."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, "llvm.x86.avx512.pmaddw.d.512", simd.i32x16.llvm, list(args))

    return simd.i32x16(simd.i16x32, simd.i16x32), codegen


@intrinsic
def _pmaddubsw(typingctx: Any, unsigned: Any, signed: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, "llvm.x86.avx2.pmadd.ub.sw", simd.i16x16.llvm, list(args))

    return simd.i16x16(simd.i8x32, simd.i8x32), codegen


@intrinsic
def _pmaddubsw_portable(typingctx: Any, unsigned: Any, signed: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        wide = ir.VectorType(ir.IntType(16), 32)
        product = builder.mul(builder.zext(args[0], wide), builder.sext(args[1], wide))
        lanes = ir.VectorType(ir.IntType(32), 16)
        even = builder.shuffle_vector(product, product, ir.Constant(lanes, list(range(0, 32, 2))))
        odd = builder.shuffle_vector(product, product, ir.Constant(lanes, list(range(1, 32, 2))))
        return builder.add(even, odd)

    return simd.i16x16(simd.i8x32, simd.i8x32), codegen


#: (unsigned i8x32, signed i8x32) -> i16x16: sums of neighbouring products, which must fit int16.
multiply_add_bytes = _pmaddubsw_portable if build_target() == "portable" else _pmaddubsw


@intrinsic
def add_pairs(typingctx: Any, value: Any) -> Any:
    """i16x16 -> i32x8: sums of neighbouring lanes (LLVM makes vpmaddwd of it where there is one)."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        wide = builder.sext(args[0], ir.VectorType(ir.IntType(32), 16))
        lanes = ir.VectorType(ir.IntType(32), 8)
        even = builder.shuffle_vector(wide, wide, ir.Constant(lanes, list(range(0, 16, 2))))
        odd = builder.shuffle_vector(wide, wide, ir.Constant(lanes, list(range(1, 16, 2))))
        return builder.add(even, odd)

    return simd.i32x8(simd.i16x16), codegen


@intrinsic
def cycles(typingctx: Any) -> Any:
    """A counter that rises with time (the time-stamp counter on x86); 0 where there is none."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, "llvm.readcyclecounter", ir.IntType(64), [])

    return types.int64(), codegen


def _halves(builder: Any, value: Any) -> list[Any]:
    undefined = ir.Constant(value.type, ir.Undefined)
    lanes = ir.VectorType(ir.IntType(32), 8)
    return [builder.shuffle_vector(value, undefined, ir.Constant(lanes, list(range(i, i + 8)))) for i in (0, 8)]


@intrinsic
def dot_bytes(typingctx: Any, acc: Any, unsigned: Any, signed: Any) -> Any:
    """vpdpbusd: each i32 lane of acc plus four unsigned times four signed bytes of it (all i32x16, or all i32x8).

    AVX-512 VNNI, or AVX-VNNI, which does sixteen lanes in two halves.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if acc == simd.i32x8 or build_target() == "avx512":
            return _call(builder, f"llvm.x86.avx512.vpdpbusd.{32 * acc.lanes}", args[0].type, list(args))
        low, high = (
            _call(builder, "llvm.x86.avx512.vpdpbusd.256", half[0].type, list(half))
            for half in zip(*(_halves(builder, value) for value in args), strict=True)
        )
        whole = ir.Constant(ir.VectorType(ir.IntType(32), 16), list(range(16)))
        return builder.shuffle_vector(low, high, whole)

    return acc(acc, acc, acc), codegen
