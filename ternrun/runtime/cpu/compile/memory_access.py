"""Loads, stores and prefetches by address, of vectors and scalars.

An address is an int64 of any alignment. Nothing here checks bounds: the caller of a kernel has checked its addresses.
This module imports numba, and is imported only while kernels are being compiled.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ternrun.runtime.cpu.compile.vectors import pointer


@intrinsic
def load(typingctx: Any, kind: Any, address: Any) -> Any:
    """Load a vector from an address: `load(f32x16, address)`."""
    out = kind.instance_type

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(pointer(builder, args[1], context.get_value_type(out)), align=1)

    return out(kind, types.int64), codegen


@intrinsic
def store(typingctx: Any, address: Any, value: Any) -> Any:
    """Store a vector to an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], pointer(builder, args[0], args[1].type), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, value), codegen


#: The same for one scalar of a numba type: `load_scalar(types.uint8, address)`, `store_scalar(address, value)`.
load_scalar, store_scalar = load, store


def _prefetch(locality: int) -> Any:
    """An intrinsic f(address) that prefetches the cache line at an address.

    The address need not be valid (llvm.prefetch).
    """

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


prefetch = _prefetch(3)  # into all cache levels (prefetcht0)
prefetch_far = _prefetch(2)  # into L2 and below (prefetcht1)
