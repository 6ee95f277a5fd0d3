"""Make, reshape and convert vectors: constants, shuffles, and casts of lanes.

Kernels read like Python loops over vectors and compile to vector instructions. LLVM splits vectors that are wider than
the machine's, so these functions run on any CPU. `x86.py` has the instructions
that only some CPUs have (table permutes, dot products).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ternrun.runtime.cpu.compile.vectors import VecType, splat_lane


@intrinsic
def zero(typingctx: Any, vec: Any) -> Any:
    """A vector of zeros."""
    out = vec.instance_type

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(out.llvm, None)

    return out(vec), codegen


@intrinsic
def splat(typingctx: Any, vec: Any, lane: Any) -> Any:
    """A vector with all lanes equal to a scalar.

    Integers are truncated to the lane's width, floats are rounded to it.
    """
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
    """A vector of the lane numbers 0, 1, 2, ..."""
    out = vec.instance_type

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(out.llvm, list(range(out.lanes)))

    return out(vec), codegen


def constant(vec: VecType, values: tuple[int, ...]) -> Callable[..., Any]:
    """An intrinsic f() that returns a constant vector."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(vec.llvm, list(values))

    @intrinsic
    def value(typingctx: Any) -> Any:
        return vec(), codegen

    return value  # type: ignore[no-any-return]


@intrinsic
def lane(typingctx: Any, value: Any, index: Any) -> Any:
    """One lane of a vector, selected at run time."""
    out = {"f": types.float32, "i": types.Integer.from_bitwidth(value.bits)}[value.kind]

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.extract_element(*args)

    return out(value, types.int64), codegen


def _cast(method: str) -> Any:
    """An intrinsic f(vec, value) that converts each lane with a method of LLVM's builder."""

    @intrinsic
    def cast(typingctx: Any, vec: Any, value: Any) -> Any:
        out = vec.instance_type

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return getattr(builder, method)(args[1], out.llvm)

        return out(vec, value), codegen

    return cast


widen = _cast("sext")  # signed integers to wider lanes
widen_unsigned = _cast("zext")
narrow = _cast("trunc")
to_float = _cast("sitofp")
to_int = _cast("fptosi")  # truncates, so callers round first; lanes must be in range
reinterpret = _cast("bitcast")  # the same bits with another vector type


def shuffler(vec: VecType, mask: tuple[int, ...], *, operands: int = 2) -> Callable[..., Any]:
    """An intrinsic f(a, b), or f(a), whose lane i is lane mask[i] of a and b concatenated; a and b are of type
    `vec`.
    """
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
