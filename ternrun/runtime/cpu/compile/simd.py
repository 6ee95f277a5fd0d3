"""SIMD vectors for numba: kernels read like Python loops over vectors and compile to the machine's own instructions.

A vector is a numba value of type `f32x16`, `i8x64`, ... with `+ - * & | ^ << >>` lane by lane; shifts take a constant
or a vector. Memory is reached by address (an int64): `load(i16x32, address)`, `store(address, vector)`, and for
scalars `get(types.float32, address)`, `put(address, value)`. LLVM splits vectors wider than the machine's, so all of
this runs on any CPU; what only some CPUs have (table permutes, dot products) is in `x86.py`.

Nothing here checks bounds: whoever hands a kernel an address has checked it.
This module imports numba and is imported only while kernels are being compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ternrun.runtime.cpu.compile.isa import FUSED
from ternrun.runtime.cpu.compile.source import KernelFunction
from ternrun.runtime.cpu.compile.vectors import VecType as VecType
from ternrun.runtime.cpu.compile.vectors import f16x16 as f16x16
from ternrun.runtime.cpu.compile.vectors import f32x16 as f32x16
from ternrun.runtime.cpu.compile.vectors import i8x16 as i8x16
from ternrun.runtime.cpu.compile.vectors import i8x32 as i8x32
from ternrun.runtime.cpu.compile.vectors import i8x64 as i8x64
from ternrun.runtime.cpu.compile.vectors import i16x8 as i16x8
from ternrun.runtime.cpu.compile.vectors import i16x16 as i16x16
from ternrun.runtime.cpu.compile.vectors import i16x32 as i16x32
from ternrun.runtime.cpu.compile.vectors import i32x4 as i32x4
from ternrun.runtime.cpu.compile.vectors import i32x8 as i32x8
from ternrun.runtime.cpu.compile.vectors import i32x16 as i32x16
from ternrun.runtime.cpu.compile.vectors import i32x32 as i32x32
from ternrun.runtime.cpu.compile.vectors import pointer as pointer
from ternrun.runtime.cpu.compile.vectors import splat_lane as splat_lane

# ---- memory ----------------------------------------------------------------------------------------------------


@intrinsic
def load(typingctx: Any, vec: Any, address: Any) -> Any:
    """Read a vector from an address of any alignment."""
    out = vec.instance_type

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(pointer(builder, args[1], out.llvm), align=1)

    return out(vec, types.int64), codegen


@intrinsic
def store(typingctx: Any, address: Any, value: Any) -> Any:
    """Write a vector to an address of any alignment."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], pointer(builder, args[0], args[1].type), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, value), codegen


@intrinsic
def load_scalar(typingctx: Any, scalar: Any, address: Any) -> Any:
    """Read one scalar of a numba type (`types.float32`, `types.uint8`, ...) from an address."""
    out = scalar.instance_type

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(pointer(builder, args[1], context.get_value_type(out)), align=1)

    return out(scalar, types.int64), codegen


@intrinsic
def store_scalar(typingctx: Any, address: Any, value: Any) -> Any:
    """Write one scalar, in the width of its numba type, to an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], pointer(builder, args[0], args[1].type), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, value), codegen


def _prefetch(locality: int) -> Any:
    @intrinsic
    def ask(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            i8, i32 = ir.IntType(8), ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [i8.as_pointer(), i32, i32, i32])
            fn = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(fn, [pointer(builder, args[0], i8), i32(0), i32(locality), i32(1)])  # to be read; data
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    return ask


prefetch = _prefetch(3)  # ask for the cache line at an address, into all caches; no fault where there is none
prefetch_far = _prefetch(2)  # the same, but not into L1


# ---- making and reshaping --------------------------------------------------------------------------------------


@intrinsic
def zero(typingctx: Any, vec: Any) -> Any:
    """All lanes zero."""
    out = vec.instance_type

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(out.llvm, None)

    return out(vec), codegen


@intrinsic
def splat(typingctx: Any, vec: Any, lane: Any) -> Any:
    """All lanes equal to a scalar (integers are truncated to the lane's width, floats rounded to it)."""
    out = vec.instance_type

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = args[1]
        if out.kind == "i" and value.type.width > out.bits:
            value = builder.trunc(value, out.scalar)
        elif out.kind == "f" and value.type != out.scalar:
            value = builder.fptrunc(value, out.scalar)
        return splat_lane(builder, out, value)

    return out(vec, lane), codegen


@intrinsic
def iota(typingctx: Any, vec: Any) -> Any:
    """Lanes 0, 1, 2, ..."""
    out = vec.instance_type

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(out.llvm, list(range(out.lanes)))

    return out(vec), codegen


def constant(vec: VecType, values: tuple[int, ...]) -> Callable[..., Any]:
    """An intrinsic f() that is this vector."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(vec.llvm, list(values))

    @intrinsic
    def value(typingctx: Any) -> Any:
        return vec(), codegen

    return value  # type: ignore[no-any-return]


@intrinsic
def lane(typingctx: Any, value: Any, index: Any) -> Any:
    """One lane of a vector, by a number that is known only at run time."""
    out = {"f": types.float32, "i": types.Integer.from_bitwidth(value.bits)}[value.kind]

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.extract_element(*args)

    return out(value, types.int64), codegen


def _cast(method: str) -> Any:
    @intrinsic
    def cast(typingctx: Any, vec: Any, value: Any) -> Any:
        out = vec.instance_type

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return getattr(builder, method)(args[1], out.llvm)

        return out(vec, value), codegen

    return cast


widen = _cast("sext")  # signed integers to a wider lane
widen_unsigned = _cast("zext")
narrow = _cast("trunc")
to_float = _cast("sitofp")
to_int = _cast("fptosi")  # truncates: round first; lanes must be in range
reinterpret = _cast("bitcast")  # the same bits as another vector type


def shuffler(vec: VecType, mask: tuple[int, ...], *, operands: int = 2) -> Callable[..., Any]:
    """An intrinsic f(a, b) (or f(a)) whose lane i is lane mask[i] of a and b laid end to end; types as of `vec`."""
    out = VecType(vec.kind, vec.bits, len(mask))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), len(mask)), list(mask))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        second = args[1] if operands == 2 else ir.Constant(vec.llvm, ir.Undefined)
        return builder.shuffle_vector(args[0], second, lanes)

    if operands == 1:

        @intrinsic
        def one(typingctx: Any, a: Any) -> Any:
            return out(vec), codegen

        return one  # type: ignore[no-any-return]

    @intrinsic
    def two(typingctx: Any, a: Any, b: Any) -> Any:
        return out(vec, vec), codegen

    return two  # type: ignore[no-any-return]


# ---- arithmetic ------------------------------------------------------------------------------------------------


def _llvm(name: str, arity: int) -> Any:
    """An intrinsic over `arity` vectors of one type through LLVM's generic `llvm.<name>.v<N><type>`."""

    def make(typingctx: Any, first: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            llvm_type = first.llvm
            suffix = f"v{first.lanes}{first.kind}{first.bits}"
            extra = [ir.Constant(ir.IntType(1), 0)] if name == "abs" else []
            kinds = [llvm_type] * arity + [e.type for e in extra]
            fn = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(llvm_type, kinds), f"llvm.{name}.{suffix}"
            )
            return builder.call(fn, [*args, *extra])

        return first(*[first] * arity), codegen

    if arity == 1:
        return intrinsic(lambda typingctx, a: make(typingctx, a))
    return intrinsic(lambda typingctx, a, b: make(typingctx, a))


square_root = _llvm("sqrt", 1)
magnitude = _llvm("fabs", 1)
_nearbyint = _llvm("nearbyint", 1)
maximum = _llvm("maxnum", 2)  # floats; a NaN lane yields the other operand
minimum = _llvm("minnum", 2)


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c of f32 vectors, rounded once.

    x86 without the instruction goes through doubles: the product is exact there, so the result is the same but for
    a double rounding in about one case in 2**29.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if not FUSED:
            double = ir.VectorType(ir.DoubleType(), a.lanes)
            x, y, z = (builder.fpext(v, double) for v in args)
            return builder.fptrunc(builder.fadd(builder.fmul(x, y), z), a.llvm)
        kind = ir.FunctionType(a.llvm, [a.llvm] * 3)
        fn = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{a.lanes}{a.kind}{a.bits}")
        return builder.call(fn, args)

    return a(a, a, a), codegen


@KernelFunction
def _round_by_adding(x: Any) -> Any:
    magic = splat(f32x16, 12582912.0)  # 1.5 * 2**23: the sum has no bits left below 1
    return (x + magic) - magic


#: To the nearest integer, ties to even; lanes must be below 2**22 in size. Old CPUs have no instruction for it.
round_even = _nearbyint if FUSED else _round_by_adding


@intrinsic
def where_less(typingctx: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """Lane by lane, `yes` where a < b (signed integers or ordered floats), else `no`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        compare = builder.icmp_signed if a.kind == "i" else builder.fcmp_ordered
        return builder.select(compare("<", args[0], args[1]), args[2], args[3])

    return yes(a, a, yes, yes), codegen


def _reduce(method: str) -> Any:
    """Reduce lanes by halves, so that the order of a float sum is one and the same on every machine."""

    @intrinsic
    def reduce(typingctx: Any, value: Any) -> Any:
        out = {"f": types.float32, "i": types.Integer.from_bitwidth(value.bits)}[value.kind]

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            v, lanes = args[0], value.lanes
            while lanes > 1:
                lanes //= 2
                mask = ir.VectorType(ir.IntType(32), lanes)
                low = builder.shuffle_vector(v, v, ir.Constant(mask, list(range(lanes))))
                high = builder.shuffle_vector(v, v, ir.Constant(mask, list(range(lanes, 2 * lanes))))
                if method == "max":
                    v = builder.select(builder.fcmp_ordered(">", low, high), low, high)
                else:
                    v = builder.add(low, high) if value.kind == "i" else builder.fadd(low, high)
            return builder.extract_element(v, ir.Constant(ir.IntType(32), 0))

        return out(value), codegen

    return reduce


total = _reduce("add")
largest = _reduce("max")  # floats
