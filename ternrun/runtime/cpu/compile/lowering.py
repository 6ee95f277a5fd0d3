"""Lower a kernel from Python source to LLVM IR, walking each function once for each combination of argument types.

Kernels use a subset of Python: numbers, vectors and tuples; assignments, `if`, `while`, `return`, and `for ... in
range(...)`; calls of other kernel functions, of intrinsics, and of functions that numba supports. A variable has one
type, set by its first assignment. Names from outside a function are constants, and a branch that a constant excludes is
not compiled.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from ternrun.runtime.cpu.compile.expressions import BYTES, OPERATORS, ExpressionLowering
from ternrun.runtime.cpu.compile.operations import Constant, Item, Operations, Value
from ternrun.runtime.cpu.compile.source import KernelFunction
from ternrun.runtime.cpu.compile.value_shapes import kinds_of, shape_of, shaped


class Unit:
    """The LLVM module of one kernel. It holds a function once for each combination of argument types."""

    def __init__(self, operations: Operations) -> None:
        self.operations, self.module = operations, ir.Module()
        self._functions: dict[tuple[Any, ...], tuple[ir.Function, Any]] = {}

    def function(self, compiled: KernelFunction, shapes: tuple[Any, ...]) -> tuple[ir.Function, Any]:
        """The LLVM function `void f(result, arguments...)` and the shape of its result.

        Raises NameError, TypeError, KeyError.
        """
        key = compiled, shapes
        if key not in self._functions:
            self._functions[key] = FunctionLowering(self, compiled, shapes).lowered()
        return self._functions[key]

    def entry(self, compiled: KernelFunction, symbol: str, first: types.Type = types.int64) -> str:
        """The module's text, with the kernel exported as `symbol`; `first` is the type of the kernel's first
        argument.
        """
        inner, _ = self.function(compiled, (first, types.int64, types.int64))
        word = ir.IntType(64)
        outer = ir.Function(self.module, ir.FunctionType(word, [word] * 3), symbol)
        builder = ir.IRBuilder(outer.append_basic_block())
        result = builder.alloca(ir.LiteralStructType([word]))
        builder.call(inner, [builder.bitcast(result, BYTES), *outer.args])
        builder.ret(builder.extract_value(builder.load(result), 0))
        return str(self.module)


@dataclass
class Loop:
    """The targets of `continue` and `break`, and whether the loop can end."""

    head: Any
    after: Any
    left: bool = True


class FunctionLowering(ExpressionLowering):
    """Lowers one function for one combination of argument types."""

    def __init__(self, unit: Unit, compiled: KernelFunction, shapes: tuple[Any, ...]) -> None:
        kinds = [unit.operations.llvm(kind) for kind in kinds_of(shapes)]
        name = unit.module.get_unique_name(compiled.name)
        self.llvm = ir.Function(unit.module, ir.FunctionType(ir.VoidType(), [BYTES, *kinds]), name)
        self.llvm.linkage = "internal"
        self.llvm.attributes.add("noinline" if compiled.noinline else "alwaysinline")
        self.llvm.args[0].add_attribute("noalias")
        super().__init__(unit, compiled, ir.IRBuilder(self.llvm.append_basic_block()))
        self.loops: list[Loop] = []
        self.result: Any = None
        arguments = shaped(shapes, iter(self.llvm.args[1:]))
        assert isinstance(arguments, tuple)
        for argument, item in zip(compiled.arguments, arguments, strict=True):
            self.assign(argument, item)

    def lowered(self) -> tuple[ir.Function, Any]:
        """The LLVM function and the shape of its result."""
        tree = self.compiled.tree
        if isinstance(tree, ast.Lambda):
            self.emit_return(self.value(tree.body))
        else:
            self.block(tree.body)
        if not self.builder.block.is_terminated:
            self.emit_return(Constant(None))
        return self.llvm, self.result

    def emit_return(self, item: Item) -> None:
        """Emit a return of an item."""
        item = self.materialized(item)
        if self.result is None:
            self.result = shape_of(item)
        values = self.as_shape(item, self.result)
        if values:
            kinds = [self.operations.llvm(kind) for kind in kinds_of(self.result)]
            place = self.builder.bitcast(self.llvm.args[0], ir.LiteralStructType(kinds).as_pointer())
            for i, value in enumerate(values):
                self.builder.store(value, cgutils.gep_inbounds(self.builder, place, 0, i))
        self.builder.ret_void()

    def block(self, statements: Sequence[ast.stmt]) -> None:
        """Lower statements up to the first that leaves the block."""
        for statement in statements:
            if self.builder.block.is_terminated:
                return
            STATEMENTS[type(statement)](self, statement)

    def inner(self, statements: Sequence[ast.stmt]) -> None:
        """Lower statements that run conditionally. Variables keep their types there."""
        self.depth += 1
        self.block(statements)
        self.depth -= 1

    def on_expr(self, node: ast.Expr) -> None:
        """Lower a call for its side effects; skip docstrings."""
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.value(node.value)

    def on_pass(self, node: ast.Pass) -> None:
        """Lower `pass` to nothing."""

    def on_assign(self, node: ast.Assign) -> None:
        """Lower `a = ...` and `a, b = ...`."""
        self.unpack(node.targets[0], self.value(node.value))

    def unpack(self, target: ast.expr, item: Item) -> None:
        """Assign an item to a name, or its parts to a tuple of names."""
        if isinstance(target, ast.Name):
            return self.assign(target.id, item)
        assert isinstance(target, ast.Tuple)
        for name, part in zip(target.elts, self.parts(item), strict=True):
            self.unpack(name, part)
        return None

    def on_aug_assign(self, node: ast.AugAssign) -> None:
        """Lower `a += ...`."""
        assert isinstance(node.target, ast.Name)
        items = self.variable(node.target.id), self.value(node.value)
        self.assign(node.target.id, self.operate(OPERATORS[type(node.op)], items))

    def on_return(self, node: ast.Return) -> None:
        """Lower `return ...`."""
        self.emit_return(Constant(None) if node.value is None else self.value(node.value))

    def on_break(self, node: ast.Break) -> None:
        """Branch out of the innermost loop."""
        self.loops[-1].left = True
        self.builder.branch(self.loops[-1].after)

    def on_continue(self, node: ast.Continue) -> None:
        """Branch to the next iteration of the innermost loop."""
        self.builder.branch(self.loops[-1].head)

    def on_if(self, node: ast.If) -> None:
        """Lower `if ... else ...`. A constant test selects the branch that is compiled."""
        test = self.test(node.test)
        if isinstance(test, bool):
            return self.block(node.body if test else node.orelse)
        yes, no, after = (self.llvm.append_basic_block() for _ in range(3))
        self.builder.cbranch(test, yes, no)
        for where, statements in ((yes, node.body), (no, node.orelse)):
            self.builder.position_at_end(where)
            self.inner(statements)
            self.go(after)
        self.builder.position_at_end(after)
        return None

    def go(self, where: Any) -> None:
        """Branch to another block, unless this block has already ended."""
        if not self.builder.block.is_terminated:
            self.builder.branch(where)

    def on_while(self, node: ast.While) -> None:
        """Lower `while ...`. Only `return` and `break` leave `while True`."""
        head, body, after = (self.llvm.append_basic_block() for _ in range(3))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        test = self.test(node.test)
        if isinstance(test, bool):
            assert test
            self.builder.branch(body)
        else:
            self.builder.cbranch(test, body, after)
        self.builder.position_at_end(body)
        self.loop(node, Loop(head, after, left=not isinstance(test, bool)))

    def on_for(self, node: ast.For) -> None:
        """Lower `for ... in range(...)`."""
        assert isinstance(node.iter, ast.Call)
        first, step, left = self.operations.count(self.builder, [self.value(bound) for bound in node.iter.args])
        number = cgutils.alloca_once_value(self.builder, first)
        head, body, after = (self.llvm.append_basic_block() for _ in range(3))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        count = self.builder.load(left)
        self.builder.cbranch(self.builder.icmp_signed(">", count, count.type(0)), body, after)
        self.builder.position_at_end(body)
        value = self.builder.load(number)
        self.builder.store(self.builder.sub(count, count.type(1)), left)
        self.builder.store(self.builder.add(value, step), number)
        self.unpack(node.target, Value(types.int64, value))
        self.loop(node, Loop(head, after))

    def loop(self, node: ast.For | ast.While, loop: Loop) -> None:
        """Lower the body at the builder's position, and branch back to the head."""
        self.loops.append(loop)
        self.inner(node.body)
        self.loops.pop()
        self.go(loop.head)
        self.builder.position_at_end(loop.after)
        if not loop.left:
            self.builder.unreachable()


#: The method that lowers each kind of statement.
STATEMENTS: dict[type[ast.stmt], Callable[[Any, Any], None]] = {
    ast.Expr: FunctionLowering.on_expr,
    ast.Pass: FunctionLowering.on_pass,
    ast.Assign: FunctionLowering.on_assign,
    ast.AugAssign: FunctionLowering.on_aug_assign,
    ast.Return: FunctionLowering.on_return,
    ast.Break: FunctionLowering.on_break,
    ast.Continue: FunctionLowering.on_continue,
    ast.If: FunctionLowering.on_if,
    ast.While: FunctionLowering.on_while,
    ast.For: FunctionLowering.on_for,
}
