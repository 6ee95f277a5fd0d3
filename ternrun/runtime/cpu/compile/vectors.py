"""Numba's vector types, and the operators `+ - * / & | ^ << >>` on them, lane by lane."""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model


class VecType(types.Type):  # type: ignore[misc]
    """A vector of `lanes` scalars of `bits` bits: kind 'i' (integer of either signedness) or 'f' (float)."""

    def __init__(self, kind: str, bits: int, lanes: int) -> None:
        self.kind, self.bits, self.lanes = kind, bits, lanes
        super().__init__(name=f"{kind}{bits}x{lanes}")

    @property
    def scalar(self) -> ir.Type:
        """The LLVM type of one lane."""
        if self.kind == "i":
            return ir.IntType(self.bits)
        return {16: ir.HalfType(), 32: ir.FloatType()}[self.bits]

    @property
    def llvm(self) -> ir.VectorType:
        """The LLVM type of the vector."""
        return ir.VectorType(self.scalar, self.lanes)


@register_model(VecType)
class _VecModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: VecType) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


f32x16, f16x16 = VecType("f", 32, 16), VecType("f", 16, 16)
i8x16, i8x32, i8x64 = (VecType("i", 8, lanes) for lanes in (16, 32, 64))
i16x8, i16x16, i16x32 = (VecType("i", 16, lanes) for lanes in (8, 16, 32))
i32x8, i32x16 = (VecType("i", 32, lanes) for lanes in (8, 16))


def pointer(builder: Any, address: Any, llvm_type: ir.Type) -> Any:
    """Convert an int64 address to an LLVM pointer."""
    return builder.inttoptr(address, llvm_type.as_pointer())


# ---- operators -------------------------------------------------------------------------------------------------


def _binary(op: Any, integer: str | None, floating: str | None) -> None:
    """Register an operator of two vectors, or of a vector and an integer, with numba."""

    @infer_global(op)
    class _Typing(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], VecType):
                if args[1] == args[0]:
                    return signature(args[0], args[0], args[0])
                if isinstance(args[1], types.Integer) and args[0].kind == "i":
                    return signature(args[0], args[0], types.int64)
            return None

    @lower_builtin(op, VecType, VecType)
    def _vectors(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        name = integer if sig.args[0].kind == "i" else floating
        return getattr(builder, str(name))(*args)

    @lower_builtin(op, VecType, types.Integer)
    def _with_scalar(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lane = builder.trunc(args[1], sig.args[0].scalar)
        return getattr(builder, str(integer))(args[0], splat_lane(builder, sig.args[0], lane))


for _op, _int, _float in (
    (operator.add, "add", "fadd"), (operator.sub, "sub", "fsub"), (operator.mul, "mul", "fmul"),
    (operator.truediv, None, "fdiv"), (operator.and_, "and_", None), (operator.or_, "or_", None),
    (operator.xor, "xor", None), (operator.lshift, "shl", None), (operator.rshift, "lshr", None),
):  # fmt: skip
    _binary(_op, _int, _float)


def splat_lane(builder: Any, vec: VecType, lane: Any) -> Any:
    """A vector with all lanes equal to an LLVM value of the lane's type."""
    one = builder.insert_element(ir.Constant(vec.llvm, ir.Undefined), lane, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vec.lanes), [0] * vec.lanes)
    return builder.shuffle_vector(one, ir.Constant(vec.llvm, ir.Undefined), mask)
