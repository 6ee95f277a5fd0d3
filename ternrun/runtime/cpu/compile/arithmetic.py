"""Arithmetic of float vectors, comparisons, and reductions over lanes; the operators are in `vectors.py`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ternrun.runtime.cpu.compile.isa import FUSED
from ternrun.runtime.cpu.compile.lanes import splat
from ternrun.runtime.cpu.compile.source import KernelFunction
from ternrun.runtime.cpu.compile.vectors import f32x16


def _llvm(name: str, arity: int) -> Any:
    """An intrinsic over `arity` vectors of one type that calls LLVM's generic `llvm.<name>.v<N><type>`."""

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
maximum = _llvm("maxnum", 2)  # floats; for a NaN lane the other operand
minimum = _llvm("minnum", 2)


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c of f32 vectors, rounded once (vfmadd).

    x86 without FMA computes in float64: the product is exact there, so the result differs only by a double rounding in
    about one case in 2**29.
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
    """Round to the nearest integer without an instruction for it."""
    magic = splat(f32x16, 12582912.0)  # 1.5 * 2**23: the sum has no fraction bits
    return (x + magic) - magic


#: Round to the nearest integer, ties to even. Lanes must be below 2**22 in magnitude. Old CPUs have no instruction.
round_even = _nearbyint if FUSED else _round_by_adding


@intrinsic
def where_less(typingctx: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """Select `yes` where a < b (signed integers or ordered floats), otherwise `no`, lane by lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        compare = builder.icmp_signed if a.kind == "i" else builder.fcmp_ordered
        return builder.select(compare("<", args[0], args[1]), args[2], args[3])

    return yes(a, a, yes, yes), codegen


def _reduce(method: str) -> Any:
    """An intrinsic that reduces lanes by halves, so that the order of a float sum is the same on every machine."""

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
