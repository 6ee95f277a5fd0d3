"""Values of a kernel while it is compiled, and what is done with them: numba's scalars and intrinsics, one at a time.

numba knows what `int64 // int64` or `min(int64, int64)` yields and how LLVM computes it. Its own compiler finds the
types of a whole function by solving for all of them at once, which takes most of its time; in a kernel each value's
type is known where it is made, so numba is asked about one operation, once for each combination of types.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial, reduce
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.callconv import create_error_model
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from ternrun.runtime.cpu.compile import vectors  # noqa: F401 (tells numba what operators do to vectors)


class Value(NamedTuple):
    """A value that machine code computes: its numba type and its LLVM value."""

    kind: types.Type
    code: Any


class Constant(NamedTuple):
    """A Python object that is known while compiling: a number, a type, a function."""

    value: Any


Item = Value | Constant | tuple[Any, ...]
EXTREMES = {min: operator.lt, max: operator.gt}
_Intrinsic = type(intrinsic(lambda typingctx: None))


class Operations:
    """numba's operations for the CPU that the environment names; a division by zero yields inf, nan or 0."""

    def __init__(self) -> None:
        self.typing, target = cpu_target.typing_context, cpu_target.target_context
        self.typing.refresh()
        target.refresh()
        self.target = target.subtarget(error_model=create_error_model("numpy", target))
        library = target.codegen().create_library("kernels")  # where numba would link what it calls, for all time
        self._linking = ExitStack()
        self._linking.enter_context(self.target.push_code_library(library))
        self._known: dict[Any, tuple[Any, Any]] = {}

    def value(self, builder: Any, item: Any) -> Value:
        """A number as machine code has it: integers as int64, floats as float64."""
        if isinstance(item, Value):
            return item
        kind = self.typing.resolve_value_type(item.value)
        if isinstance(kind, (types.NumberClass, types.TypeRef, types.NoneType)):
            return Value(kind, self.target.get_dummy_value())
        return Value(kind, self.target.get_constant_generic(builder, kind, item.value))

    def call(self, builder: Any, function: Any, items: Sequence[Item]) -> Item:
        """An operator, an intrinsic or one of numba's functions. Raises numba's TypingError."""
        values = [self.value(builder, item) for item in items]
        if function in EXTREMES:
            return reduce(partial(self._extreme, builder, EXTREMES[function]), values)
        key = function, tuple(value.kind for value in values)
        if key not in self._known:
            self._known[key] = self._found(*key)
        signature, code = self._known[key]
        args = [self.cast(builder, value, kind).code for value, kind in zip(values, signature.args, strict=True)]
        result = code(builder, signature, args)
        return Constant(None) if signature.return_type == types.void else Value(signature.return_type, result)

    def _extreme(self, builder: Any, better: Any, one: Value, other: Value) -> Value:
        """`one`, or `other` where that is better."""
        kind = self.common([one.kind, other.kind])
        one, other = self.cast(builder, one, kind), self.cast(builder, other, kind)
        test = self.call(builder, better, (other, one))
        assert isinstance(test, Value)
        return Value(kind, builder.select(self.truth(builder, test), other.code, one.code))

    def _found(self, function: Any, kinds: tuple[types.Type, ...]) -> tuple[Any, Any]:
        """The signature for these types, and f(builder, signature, arguments)."""
        if isinstance(function, _Intrinsic):
            signature, generate = function._defn(self.typing, *kinds)
            return signature, lambda builder, signature, args: generate(self.target, builder, signature, args)
        resolved = self.typing.resolve_value_type(function)
        signature = self.typing.resolve_function_type(resolved, kinds, {})
        implementation = self.target.get_function(resolved, signature)
        return signature, lambda builder, signature, args: implementation(builder, args)

    def cast(self, builder: Any, value: Value, kind: types.Type) -> Value:
        """The value as another type."""
        if value.kind == kind or isinstance(value.kind, (types.NumberClass, types.TypeRef)):
            return value
        return Value(kind, self.target.cast(builder, value.code, value.kind, kind))

    def common(self, kinds: Sequence[types.Type]) -> types.Type:
        """The type that values of these types have in one variable."""
        return self.typing.unify_types(*kinds)

    def truth(self, builder: Any, value: Value) -> Any:
        """Whether it is not zero, as LLVM's i1."""
        return self.target.is_true(builder, value.kind, value.code)

    def llvm(self, kind: types.Type) -> Any:
        """LLVM's type of such values."""
        return self.target.get_value_type(kind)

    def count(self, builder: Any, bounds: Sequence[Item]) -> tuple[Any, Any, Any]:
        """First number, step and length of `range` of these bounds, as LLVM's i64; a step of 0 makes none."""
        values = [self.cast(builder, self.value(builder, bound), types.int64).code for bound in bounds]
        word = self.llvm(types.int64)
        zero, one = word(0), word(1)
        first, end = (zero, values[0]) if len(values) == 1 else values[:2]
        step = values[2] if len(values) > 2 else one
        way = builder.sub(end, first)
        ahead, up = builder.icmp_signed(">", way, zero), builder.icmp_signed(">", step, zero)
        none = builder.xor(ahead, up)
        if not isinstance(step, ir.Constant):
            none = builder.or_(none, builder.icmp_signed("==", step, zero))
        length = cgutils.alloca_once(builder, word)
        with builder.if_else(none) as (empty, some):
            with empty:
                builder.store(zero, length)
            with some:
                left = builder.srem(way, step)
                left = builder.select(ahead, left, builder.neg(left))
                more = builder.select(builder.icmp_signed(">", left, zero), one, zero)
                builder.store(builder.add(builder.sdiv(way, step), more), length)
        return first, step, length
