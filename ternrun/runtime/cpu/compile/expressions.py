"""Lower the expressions of a kernel function from Python's syntax tree to LLVM IR."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

from llvmlite import ir
from numba import types
from numba.core import cgutils

from ternrun.runtime.cpu.compile.arguments import read
from ternrun.runtime.cpu.compile.operations import Constant, Item, Operations, Value
from ternrun.runtime.cpu.compile.source import KernelFunction
from ternrun.runtime.cpu.compile.value_shapes import flat, kinds_of, shape_of, shaped

OPERATORS: dict[type[ast.AST], Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.LShift: operator.lshift, ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor, ast.USub: operator.neg,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
BYTES = ir.IntType(8).as_pointer()


class CompilationUnit(Protocol):
    """The module that a function is lowered into, and where the functions that it calls are found."""

    @property
    def operations(self) -> Operations:
        """numba's operations for the target CPU."""
        ...

    def function(self, compiled: KernelFunction, shapes: tuple[Any, ...]) -> tuple[ir.Function, Any]:
        """The LLVM function for arguments of these shapes, and the shape of its result."""
        ...


class ExpressionLowering:
    """Lowers the expressions of one function; `lowering.FunctionLowering` adds statements."""

    def __init__(self, unit: CompilationUnit, compiled: KernelFunction, builder: ir.IRBuilder) -> None:
        self.unit, self.operations, self.compiled, self.builder = unit, unit.operations, compiled, builder
        self.names: dict[str, Any] = {}  # variables: a shape whose values are LLVM pointers to stack slots
        self.depth = 0  # number of enclosing `if` statements and loops

    def materialized(self, item: Item) -> Item:
        """Replace constant numbers by LLVM values, because a variable can change and a function serves all numbers."""
        if isinstance(item, tuple) and not isinstance(item, (Value, Constant)):
            return tuple(map(self.materialized, item))
        if isinstance(item, Constant) and isinstance(item.value, (int, float)):
            return self.operations.value(self.builder, item)
        if isinstance(item, Constant) and isinstance(item.value, tuple):
            return tuple(self.materialized(Constant(part)) for part in item.value)
        return item

    def assign(self, name: str, item: Item) -> None:
        """Store into a variable. The first assignment creates it and sets its shape."""
        item = self.materialized(item)
        known = self.names.get(name)
        if known is None or (shape_of(known) != shape_of(item) and not self.depth):
            known = self.names[name] = self.room(shape_of(item), name)
        for slot, value in zip(flat(known), self.as_shape(item, shape_of(known)), strict=True):
            self.builder.store(value, slot)

    def room(self, shape: Any, name: str) -> Item:
        """Allocate stack slots for the values of a shape."""
        places = [cgutils.alloca_once(self.builder, self.operations.llvm(kind), name=name) for kind in kinds_of(shape)]
        return shaped(shape, iter(places))

    def as_shape(self, item: Item, shape: Any) -> list[Any]:
        """The LLVM values of an item, cast to a shape. Raises TypeError if the item has another shape."""
        own = shape_of(item)
        if own == shape:
            return flat(item)
        if isinstance(item, Value) and isinstance(shape, types.Type) and self.operations.common([own, shape]) == shape:
            return [self.operations.cast(self.builder, item, shape).code]
        raise TypeError(f"{self.compiled.name}: {own} where {shape} was before")

    def call(self, compiled: KernelFunction, items: Sequence[Item]) -> Item:
        """Emit a call of another kernel function."""
        items = tuple(map(self.materialized, items))
        function, result = self.unit.function(compiled, tuple(map(shape_of, items)))
        kinds = [self.operations.llvm(kind) for kind in kinds_of(result)]
        args = [code for item in items for code in flat(item)]
        if not kinds:
            self.builder.call(function, [ir.Constant(BYTES, None), *args])
            return result  # type: ignore[no-any-return]
        place = cgutils.alloca_once(self.builder, ir.LiteralStructType(kinds))
        self.builder.call(function, [self.builder.bitcast(place, BYTES), *args])
        codes = [self.builder.load(cgutils.gep_inbounds(self.builder, place, 0, i)) for i in range(len(kinds))]
        return shaped(result, iter(codes))

    def value(self, node: ast.expr) -> Item:
        """Lower an expression."""
        item: Item = EXPRESSIONS[type(node)](self, node)
        return item

    def test(self, node: ast.expr) -> Any:
        """The truth value of an expression: a bool if it is known at compile time, otherwise LLVM's i1."""
        item = self.value(node)
        if isinstance(item, Constant):
            return bool(item.value)
        assert isinstance(item, Value)
        return self.operations.truth(self.builder, item)

    def of_constant(self, node: ast.Constant) -> Item:
        """Lower a literal."""
        return Constant(node.value)

    def of_name(self, node: ast.Name) -> Item:
        """Lower a name: a variable, or a constant from outside the function."""
        return self.variable(node.id) if node.id in self.names else Constant(self.compiled.meaning(node.id))

    def variable(self, name: str) -> Item:
        """Load a variable."""
        known = self.names[name]
        return shaped(shape_of(known), iter([self.builder.load(slot) for slot in flat(known)]))

    def of_attribute(self, node: ast.Attribute) -> Item:
        """Lower an attribute: a kernel argument, or an attribute of a module or a type."""
        base = self.value(node.value)
        if isinstance(base, Value):
            return Value(*read(self.builder, base.kind, base.code, node.attr))
        assert isinstance(base, Constant)
        return Constant(getattr(base.value, node.attr))

    def of_tuple(self, node: ast.Tuple) -> Item:
        """Lower a tuple; `*rest` stands for its items."""
        items: list[Item] = []
        for part in node.elts:
            if isinstance(part, ast.Starred):
                items += self.parts(self.value(part.value))
            else:
                items.append(self.value(part))
        return tuple(items)

    def of_subscript(self, node: ast.Subscript) -> Item:
        """Lower an index or a slice of a tuple. Both must be constant."""
        parts = self.parts(self.value(node.value))
        if isinstance(node.slice, ast.Slice):
            ends = [None if end is None else self.value(end) for end in (node.slice.lower, node.slice.upper)]
            return parts[slice(*(end.value if isinstance(end, Constant) else None for end in ends))]
        index = self.value(node.slice)
        assert isinstance(index, Constant)
        return parts[index.value]

    def operate(self, function: Any, items: Sequence[Item]) -> Item:
        """Lower an operator or a function of numbers and vectors. Constant operands are folded."""
        if items and all(isinstance(item, Constant) and isinstance(item.value, (int, float)) for item in items):
            return Constant(function(*(item.value for item in items if isinstance(item, Constant))))
        return self.operations.call(self.builder, function, items)

    def of_bin_op(self, node: ast.BinOp) -> Item:
        """Lower `a + b` and the like."""
        return self.operate(OPERATORS[type(node.op)], (self.value(node.left), self.value(node.right)))

    def of_unary_op(self, node: ast.UnaryOp) -> Item:
        """Lower `-a` and `not a`."""
        if not isinstance(node.op, ast.Not):
            return self.operate(OPERATORS[type(node.op)], (self.value(node.operand),))
        test = self.test(node.operand)
        return Constant(not test) if isinstance(test, bool) else Value(types.boolean, self.builder.not_(test))

    def of_compare(self, node: ast.Compare) -> Item:
        """Lower `a < b < c`. All operands are evaluated."""
        items = [self.value(part) for part in (node.left, *node.comparators)]
        results = [self.operate(OPERATORS[type(op)], pair) for op, pair in zip(node.ops, pairwise(items), strict=True)]
        result = results[0]
        for more in results[1:]:
            result = self.operate(operator.and_, (result, more))
        return result

    def of_bool_op(self, node: ast.BoolOp) -> Item:
        """Lower `a and b` and `a or b` to a bool."""
        return self.short_circuit(node.values, stop=isinstance(node.op, ast.Or))

    def short_circuit(self, nodes: Sequence[ast.expr], *, stop: bool) -> Item:
        """Lower `a or b or ...` (`stop=True`) or `a and b and ...` (`stop=False`) to a bool.

        Each operand is evaluated only if the operands before it do not decide the result.
        """
        first = self.test(nodes[0])
        if len(nodes) == 1:
            return Constant(first) if isinstance(first, bool) else Value(types.boolean, first)
        if isinstance(first, bool):
            return Constant(stop) if first == stop else self.short_circuit(nodes[1:], stop=stop)
        return self.select(
            first,
            (lambda: Constant(True)) if stop else (lambda: self.short_circuit(nodes[1:], stop=stop)),
            (lambda: self.short_circuit(nodes[1:], stop=stop)) if stop else (lambda: Constant(False)),
        )

    def of_if_exp(self, node: ast.IfExp) -> Item:
        """Lower `a if test else b`."""
        test = self.test(node.test)
        if isinstance(test, bool):
            return self.value(node.body if test else node.orelse)
        return self.select(test, lambda: self.value(node.body), lambda: self.value(node.orelse))

    def select(self, test: Any, yes: Any, no: Any) -> Item:
        """Emit yes() or no() depending on `test`; returns one item of their common type."""
        blocks = [self.builder.append_basic_block() for _ in range(3)]
        self.builder.cbranch(test, *blocks[:2])
        ends = []
        for block, make in zip(blocks, (yes, no), strict=False):
            self.builder.position_at_end(block)
            ends.append((self.materialized(make()), self.builder.block))
        shape = self.common_shape(*(shape_of(item) for item, _ in ends))
        merging = []
        for item, block in ends:
            self.builder.position_at_end(block)
            merging.append((self.as_shape(item, shape), block))
            self.builder.branch(blocks[2])
        self.builder.position_at_end(blocks[2])
        codes = []
        for i, kind in enumerate(kinds_of(shape)):
            phi = self.builder.phi(self.operations.llvm(kind))
            for values, block in merging:
                phi.add_incoming(values[i], block)
            codes.append(phi)
        return shaped(shape, iter(codes))

    def common_shape(self, one: Any, other: Any) -> Any:
        """The shape of a value that has either of two shapes."""
        if one == other or not isinstance(one, types.Type) or not isinstance(other, types.Type):
            return one
        return self.operations.common([one, other])

    def of_call(self, node: ast.Call) -> Item:
        """Lower a call of a kernel function, of a type (a cast), of an intrinsic, or of a function that numba
        supports.
        """
        called, items = self.value(node.func), [self.value(argument) for argument in node.args]
        assert isinstance(called, Constant)
        function = called.value
        if isinstance(function, KernelFunction):
            return self.call(function, items)
        if isinstance(function, types.Type):
            return self.operations.cast(self.builder, self.operations.value(self.builder, items[0]), function)
        return self.operate(function, items)

    def parts(self, item: Item) -> tuple[Item, ...]:
        """The items of a tuple."""
        if isinstance(item, Constant):
            return tuple(map(Constant, item.value))
        assert not isinstance(item, Value)
        return item


#: The method that lowers each kind of expression.
EXPRESSIONS: dict[type[ast.expr], Callable[[Any, Any], Item]] = {
    ast.Constant: ExpressionLowering.of_constant,
    ast.Name: ExpressionLowering.of_name,
    ast.Attribute: ExpressionLowering.of_attribute,
    ast.Tuple: ExpressionLowering.of_tuple,
    ast.Subscript: ExpressionLowering.of_subscript,
    ast.BinOp: ExpressionLowering.of_bin_op,
    ast.UnaryOp: ExpressionLowering.of_unary_op,
    ast.Compare: ExpressionLowering.of_compare,
    ast.BoolOp: ExpressionLowering.of_bool_op,
    ast.IfExp: ExpressionLowering.of_if_exp,
    ast.Call: ExpressionLowering.of_call,
}
