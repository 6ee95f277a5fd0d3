"""The one way kernel code is compiled, and the calling convention of a kernel.

A kernel is `int64 kernel(int64 args, int64 tid, int64 nt)`: the address of its arguments (eight-byte words), the number
of the calling thread, and how many threads call it at once; each does its share. It returns 0. Python code of a kernel
reads an argument as `args.name`; the names are those of the kernel's signature (`signatures.py`).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, intrinsic, lower_getattr_generic, models, register_model

from ternrun.runtime.cpu.signatures import FLOAT, Signature

#: Compile without bounds, without Python errors (a division by zero yields inf or nan) and without fast-math.
compiled = njit(error_model="numpy", nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


class Arguments(types.Type):  # type: ignore[misc]
    """The address of words that a signature describes; the parameters are attributes, int64 or float32."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        super().__init__(name=f"Arguments({', '.join(f'{n}:{k.name}' for n, k in signature.parameters.items())})")


@register_model(Arguments)
class _ArgumentsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Arguments) -> None:
        super().__init__(dmm, fe_type, ir.IntType(64))


@infer_getattr
class _ArgumentsTemplate(AttributeTemplate):  # type: ignore[misc]
    key = Arguments

    def generic_resolve(self, typ: Arguments, attr: str) -> Any:
        kind = typ.signature.parameters.get(attr)
        return None if kind is None else types.float32 if kind is FLOAT else types.int64


@lower_getattr_generic(Arguments)
def _read(context: Any, builder: Any, typ: Arguments, value: Any, attr: str) -> Any:
    as_float = typ.signature.parameters[attr] is FLOAT
    word = ir.DoubleType() if as_float else ir.IntType(64)
    address = builder.add(value, ir.Constant(ir.IntType(64), 8 * typ.signature.index(attr)))
    read = builder.load(builder.inttoptr(address, word.as_pointer()), align=1)
    return builder.fptrunc(read, ir.FloatType()) if as_float else read


@intrinsic
def record(typingctx: Any, args: Any, index: Any) -> Any:
    """The repeated record number `index` behind the arguments."""
    repeated = args.signature.repeated
    before, size = 8 * len(args.signature), 8 * len(repeated)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        step = builder.mul(values[1], ir.Constant(ir.IntType(64), size))
        return builder.add(builder.add(values[0], step), ir.Constant(ir.IntType(64), before))

    return Arguments(repeated)(args, types.int64), codegen


@compiled
def share(n: int, tid: int, nt: int) -> Any:
    """First and end of the part of range(n) that falls to thread `tid`."""
    return n * tid // nt, n * (tid + 1) // nt
