"""The type of a kernel's first argument: an address whose layout the kernel's signature describes."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from ternrun.runtime.cpu.signatures import FLOAT, Signature

_WORD, _DOUBLE = ir.IntType(64), ir.DoubleType()


class Arguments(types.Type):  # type: ignore[misc]
    """The address of the eight-byte words that `signature` describes.

    Each parameter is an attribute, int64 or float32.
    """

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        super().__init__(name=f"Arguments({', '.join(f'{n}:{k.name}' for n, k in signature.parameters.items())})")


@register_model(Arguments)
class _ArgumentsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Arguments) -> None:
        super().__init__(dmm, fe_type, _WORD)


def read(builder: Any, kind: Arguments, address: Any, name: str) -> tuple[types.Type, Any]:
    """Emit the load of one argument; returns its numba type and its LLVM value.

    Raises AttributeError for a name that the signature does not have.
    """
    parameters = kind.signature.parameters
    if name not in parameters:
        raise AttributeError(f"{name} is not one of {', '.join(parameters)}")
    at = builder.add(address, _WORD(8 * kind.signature.index(name)))
    as_float = parameters[name] is FLOAT
    word = builder.load(builder.inttoptr(at, (_DOUBLE if as_float else _WORD).as_pointer()), align=1)
    return (types.float32, builder.fptrunc(word, ir.FloatType())) if as_float else (types.int64, word)


@intrinsic
def record(typingctx: Any, args: Any, index: Any) -> Any:
    """The address of record `index` among the repeated records that follow the arguments."""
    repeated = args.signature.repeated
    before, size = 8 * len(args.signature), 8 * len(repeated)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return builder.add(builder.add(values[0], builder.mul(values[1], _WORD(size))), _WORD(before))

    return Arguments(repeated)(args, types.int64), codegen
