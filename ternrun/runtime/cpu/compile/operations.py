"""Values of a kernel during compilation, and operations on them, taken one at a time from numba.

numba defines the types and the LLVM code of `int64 // int64` or `min(int64, int64)`. Its own compiler infers the types
of a whole function at once, which takes most of its time. In a kernel each value's type is known where the value is
computed, so numba is asked for one operation at a time, once for each combination of types.
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

from ternrun.runtime.cpu.compile import vectors  # noqa: F401 (registers the vector operators with numba)


class Value(NamedTuple):
    """A value computed at run time: its numba type and its LLVM value."""

    kind: types.Type
    code: Any


class Constant(NamedTuple):
    """A Python object known at compile time: a number, a type, a function."""

    value: Any


Item = Value | Constant | tuple[Any, ...]
EXTREMES = {min: operator.lt, max: operator.gt}
_Intrinsic = type(intrinsic(lambda typingctx: None))


class Operations:
    """numba's operations for the CPU that the environment names. A division by zero yields inf, nan or 0."""

    def __init__(self) -> None:
        self.typing, target = cpu_target.typing_context, cpu_target.target_context
        self.typing.refresh()
        target.refresh()
        self.target = target.subtarget(error_model=create_error_model("numpy", target))
        library = target.codegen().create_library("kernels")  # numba links helpers here; never freed
        self._linking = ExitStack()
        self._linking.enter_context(self.target.push_code_library(library))
        self._known: dict[Any, tuple[Any, Any]] = {}

    def value(self, builder: Any, item: Any) -> Value:
        """A number as an LLVM value: integers as int64, floats as float64."""
        if isinstance(item, Value):
            return item
        kind = self.typing.resolve_value_type(item.value)
        if isinstance(kind, (types.NumberClass, types.TypeRef, types.NoneType)):
            return Value(kind, self.target.get_dummy_value())
        return Value(kind, self.target.get_constant_generic(builder, kind, item.value))

    def call(self, builder: Any, function: Any, items: Sequence[Item]) -> Item:
        """Emit an operator, an intrinsic or one of numba's functions. Raises numba's TypingError."""
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
        """Emit min or max: `other` if `better(other, one)`, otherwise `one`."""
        kind = self.common([one.kind, other.kind])
        one, other = self.cast(builder, one, kind), self.cast(builder, other, kind)
        test = self.call(builder, better, (other, one))
        assert isinstance(test, Value)
        return Value(kind, builder.select(self.truth(builder, test), other.code, one.code))

    def _found(self, function: Any, kinds: tuple[types.Type, ...]) -> tuple[Any, Any]:
        """The signature for argument types, and a function f(builder, signature, arguments) that emits the code."""
        if isinstance(function, _Intrinsic):
            signature, generate = function._defn(self.typing, *kinds)
            return signature, lambda builder, signature, args: generate(self.target, builder, signature, args)
        resolved = self.typing.resolve_value_type(function)
        signature = self.typing.resolve_function_type(resolved, kinds, {})
        implementation = self.target.get_function(resolved, signature)
        return signature, lambda builder, signature, args: implementation(builder, args)

    def cast(self, builder: Any, value: Value, kind: types.Type) -> Value:
        """Convert a value to another type."""
        if value.kind == kind or isinstance(value.kind, (types.NumberClass, types.TypeRef)):
            return value
        return Value(kind, self.target.cast(builder, value.code, value.kind, kind))

    def common(self, kinds: Sequence[types.Type]) -> types.Type:
        """The type of a variable that holds values of these types."""
        return self.typing.unify_types(*kinds)

    def truth(self, builder: Any, value: Value) -> Any:
        """Whether a value is nonzero, as LLVM's i1."""
        return self.target.is_true(builder, value.kind, value.code)

    def llvm(self, kind: types.Type) -> Any:
        """The LLVM type of values of a numba type."""
        return self.target.get_value_type(kind)

    def count(self, builder: Any, bounds: Sequence[Item]) -> tuple[Any, Any, Any]:
        """The first number, the step and a pointer to the length of `range(*bounds)`, as i64.

        A step of 0 makes the range empty.
        """
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
