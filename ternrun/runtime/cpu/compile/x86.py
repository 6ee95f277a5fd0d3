"""Instructions that only some x86 CPUs have. The tests check each against its plain meaning.

`multiply_add_bytes` has a portable form with the same results, so one kernel serves AVX2 and every other CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ternrun.runtime.cpu.compile.isa import build_target
from ternrun.runtime.cpu.compile.vectors import f32x16, i8x32, i8x64, i16x16, i16x32, i32x8, i32x16


def _call(builder: Any, name: str, out: ir.Type, args: list[Any]) -> Any:
    """Emit a call of an LLVM intrinsic by name."""
    kind = ir.FunctionType(out, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _instruction(name: str, signature: Any, *, swapped: bool = False) -> Any:
    """An intrinsic f(a, b) that calls the LLVM intrinsic `name`, which takes b first if `swapped`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, name, sig.return_type.llvm, list(args)[::-1] if swapped else list(args))

    return intrinsic(lambda typingctx, a, b: (signature, codegen))


#: vpermw: f(index, table) whose lane i is table[index[i] & 31]; both i16x32. AVX-512 BW.
lookup = _instruction("llvm.x86.avx512.permvar.hi.512", i16x32(i16x32, i16x32), swapped=True)
#: vpermps: f(index, table) whose lane i is table[index[i] & 15]; i32x16 and f32x16. AVX-512 F.
permute = _instruction("llvm.x86.avx512.permvar.sf.512", f32x16(i32x16, f32x16), swapped=True)
#: vpmaddubsw: (unsigned i8x64, signed i8x64) -> i16x32, sums of adjacent products. AVX-512 BW.
add_byte_products = _instruction("llvm.x86.avx512.pmaddubs.w.512", i16x32(i8x64, i8x64))
#: vpmaddwd: (i16x32, i16x32) -> i32x16, sums of adjacent products. AVX-512 BW.
add_products = _instruction("llvm.x86.avx512.pmaddw.d.512", i32x16(i16x32, i16x32))
#: vpmaddubsw: (unsigned i8x32, signed i8x32) -> i16x16. AVX2.
_pmaddubsw = _instruction("llvm.x86.avx2.pmadd.ub.sw", i16x16(i8x32, i8x32))


@intrinsic
def _pmaddubsw_portable(typingctx: Any, unsigned: Any, signed: Any) -> Any:
    """The same results as `_pmaddubsw` without its saturation, on any CPU."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        wide = ir.VectorType(ir.IntType(16), 32)
        product = builder.mul(builder.zext(args[0], wide), builder.sext(args[1], wide))
        lanes = ir.VectorType(ir.IntType(32), 16)
        even = builder.shuffle_vector(product, product, ir.Constant(lanes, list(range(0, 32, 2))))
        odd = builder.shuffle_vector(product, product, ir.Constant(lanes, list(range(1, 32, 2))))
        return builder.add(even, odd)

    return i16x16(i8x32, i8x32), codegen


#: (unsigned i8x32, signed i8x32) -> i16x16: sums of adjacent products, which must fit int16.
multiply_add_bytes = _pmaddubsw_portable if build_target() == "portable" else _pmaddubsw


@intrinsic
def add_pairs(typingctx: Any, value: Any) -> Any:
    """i16x16 -> i32x8: sums of adjacent lanes. LLVM emits vpmaddwd where it exists."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        wide = builder.sext(args[0], ir.VectorType(ir.IntType(32), 16))
        lanes = ir.VectorType(ir.IntType(32), 8)
        even = builder.shuffle_vector(wide, wide, ir.Constant(lanes, list(range(0, 16, 2))))
        odd = builder.shuffle_vector(wide, wide, ir.Constant(lanes, list(range(1, 16, 2))))
        return builder.add(even, odd)

    return i32x8(i16x16), codegen


@intrinsic
def cycles(typingctx: Any) -> Any:
    """A counter that rises with time: the time-stamp counter on x86 (rdtsc), 0 on CPUs without one."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, "llvm.readcyclecounter", ir.IntType(64), [])

    return types.int64(), codegen


def _dot(builder: Any, acc: Any, unsigned: Any, signed: Any) -> Any:
    """vpdpbusd of VNNI, 8 or 16 lanes."""
    return _call(builder, f"llvm.x86.avx512.vpdpbusd.{32 * acc.type.count}", acc.type, [acc, unsigned, signed])


def _dot_by_words(builder: Any, acc: Any, unsigned: Any, signed: Any) -> Any:
    """The result of 8 lanes of vpdpbusd with AVX2's vpmaddwd.

    Even and odd bytes are multiplied as int16 in turn, because vpmaddubsw would saturate.
    """
    kind = i16x16.llvm
    eight, byte = (ir.Constant(kind, [value] * 16) for value in (8, 255))
    u, s = builder.bitcast(unsigned, kind), builder.bitcast(signed, kind)
    even = builder.and_(u, byte), builder.ashr(builder.shl(s, eight), eight)
    odd = builder.lshr(u, eight), builder.ashr(s, eight)
    sums = [_call(builder, "llvm.x86.avx2.pmadd.wd", acc.type, list(pair)) for pair in (even, odd)]
    return builder.add(acc, builder.add(*sums))


def _in_halves(builder: Any, values: Sequence[Any], each: Callable[..., Any]) -> Any:
    """Apply `each` to the lower and to the upper eight 32-bit lanes."""
    lanes = [ir.Constant(ir.VectorType(ir.IntType(32), n), list(range(i, i + n))) for i, n in ((0, 8), (8, 8), (0, 16))]
    halves = [
        each(builder, *(builder.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), some) for v in values))
        for some in lanes[:2]
    ]
    return builder.shuffle_vector(*halves, lanes[2])


@intrinsic
def dot_bytes(typingctx: Any, acc: Any, unsigned: Any, signed: Any) -> Any:
    """vpdpbusd: acc plus the sum of four unsigned times four signed bytes, for each i32 lane (all i32x16, or all
    i32x8).

    With 256-bit vectors, sixteen lanes are computed in two halves. Not available in portable code.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        each = _dot_by_words if build_target() == "avx2" else _dot
        if acc.lanes == 16 and build_target() != "avx512":
            return _in_halves(builder, args, each)
        return each(builder, *args)

    return acc(acc, acc, acc), codegen
