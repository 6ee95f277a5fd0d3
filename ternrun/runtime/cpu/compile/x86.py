"""Instructions that only some x86 CPUs have, each with the plain meaning a test checks it against.

`multiply_add_bytes` has a portable form of the same integers, so one kernel serves AVX2 and every other CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ternrun.runtime.cpu.compile import simd
from ternrun.runtime.cpu.compile.isa import build_target


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
def permute(typingctx: Any, index: Any, table: Any) -> Any:
    """vpermps: lane i is table[index[i] & 15]; i32x16 and f32x16. AVX-512 F."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, "llvm.x86.avx512.permvar.sf.512", args[1].type, [args[1], args[0]])

    return simd.f32x16(simd.i32x16, simd.f32x16), codegen


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


def _dot(builder: Any, acc: Any, unsigned: Any, signed: Any) -> Any:
    """vpdpbusd of VNNI, 8 or 16 lanes."""
    return _call(builder, f"llvm.x86.avx512.vpdpbusd.{32 * acc.type.count}", acc.type, [acc, unsigned, signed])


def _dot_by_words(builder: Any, acc: Any, unsigned: Any, signed: Any) -> Any:
    """The same of 8 lanes by AVX2's vpmaddwd: even bytes and odd ones as int16, since vpmaddubsw would saturate."""
    kind = simd.i16x16.llvm
    eight, byte = (ir.Constant(kind, [value] * 16) for value in (8, 255))
    u, s = builder.bitcast(unsigned, kind), builder.bitcast(signed, kind)
    even = builder.and_(u, byte), builder.ashr(builder.shl(s, eight), eight)
    odd = builder.lshr(u, eight), builder.ashr(s, eight)
    sums = [_call(builder, "llvm.x86.avx2.pmadd.wd", acc.type, list(pair)) for pair in (even, odd)]
    return builder.add(acc, builder.add(*sums))


def _in_halves(builder: Any, values: Sequence[Any], each: Callable[..., Any]) -> Any:
    """`each` of the lower eight lanes of 32 bits, and of the upper eight."""
    lanes = [ir.Constant(ir.VectorType(ir.IntType(32), n), list(range(i, i + n))) for i, n in ((0, 8), (8, 8), (0, 16))]
    halves = [
        each(builder, *(builder.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), some) for v in values))
        for some in lanes[:2]
    ]
    return builder.shuffle_vector(*halves, lanes[2])


@intrinsic
def dot_bytes(typingctx: Any, acc: Any, unsigned: Any, signed: Any) -> Any:
    """vpdpbusd: each i32 lane of acc plus four unsigned times four signed bytes of it (all i32x16, or all i32x8).

    Where vectors have 256 bits, sixteen lanes are done in two halves. Not in portable code.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        each = _dot_by_words if build_target() == "avx2" else _dot
        if acc.lanes == 16 and build_target() != "avx512":
            return _in_halves(builder, args, each)
        return each(builder, *args)

    return acc(acc, acc, acc), codegen
