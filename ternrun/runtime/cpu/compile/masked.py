"""Masked loads and stores of the first lanes of a vector, for rows whose length is not a multiple of 16."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ternrun.runtime.cpu.compile.vectors import f32x16, pointer

_LANES = f32x16.lanes
_BITS = ir.VectorType(ir.IntType(1), _LANES)


def _mask(builder: Any, n: Any) -> Any:
    """A vector of i1 that is true for lanes below n."""
    wide = ir.VectorType(ir.IntType(64), _LANES)
    start = builder.insert_element(ir.Constant(wide, ir.Undefined), n, ir.IntType(32)(0))
    all_lanes = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
    count = builder.shuffle_vector(start, start, all_lanes)
    return builder.icmp_signed("<", ir.Constant(wide, list(range(_LANES))), count)


@intrinsic
def load_some(typingctx: Any, address: Any, n: Any, rest: Any) -> Any:
    """Load the first min(n, 16) floats from an address; the other lanes come from `rest`.

    No memory past those floats is read (llvm.masked.load; vmaskmovps or AVX-512 masks on x86).
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = pointer(builder, args[0], f32x16.llvm)
        kind = ir.FunctionType(f32x16.llvm, [at.type, ir.IntType(32), _BITS, f32x16.llvm])
        fn = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.load.v16f32.p0")
        return builder.call(fn, [at, ir.IntType(32)(1), _mask(builder, args[1]), args[2]])

    return f32x16(types.int64, types.int64, f32x16), codegen


@intrinsic
def store_some(typingctx: Any, address: Any, value: Any, n: Any) -> Any:
    """Store the first min(n, 16) lanes to an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = pointer(builder, args[0], f32x16.llvm)
        kind = ir.FunctionType(ir.VoidType(), [f32x16.llvm, at.type, ir.IntType(32), _BITS])
        fn = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.store.v16f32.p0")
        builder.call(fn, [args[1], at, ir.IntType(32)(1), _mask(builder, args[2])])
        return context.get_dummy_value()

    return types.void(types.int64, f32x16, types.int64), codegen
