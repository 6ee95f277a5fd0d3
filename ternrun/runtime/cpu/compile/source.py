"""A kernel function as Python's own syntax tree, and what the names in it mean."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

Tree = ast.FunctionDef | ast.Lambda


class KernelFunction:
    """A Python function that kernels call; `lowering.py` turns it into machine code for the types it is called with."""

    def __init__(self, function: Callable[..., Any], *, noinline: bool = False) -> None:
        self.function, self.noinline = function, noinline
        self.name = function.__qualname__
        code = function.__code__
        self.arguments = code.co_varnames[: code.co_argcount]
        self._closure = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))

    def __call__(self, *args: Any) -> Any:
        """Not to be called from Python: vectors exist in machine code only."""
        raise TypeError(f"{self.name} runs in machine code only")

    @property
    def tree(self) -> Tree:
        """Its definition. Raises LookupError where the source does not show it."""
        code = self.function.__code__
        for found in _definitions(code.co_filename).get(code.co_firstlineno, ()):
            if tuple(argument.arg for argument in found.args.args) == self.arguments:
                return found
        raise LookupError(f"{code.co_filename}:{code.co_firstlineno} does not show {self.name}")

    def meaning(self, name: str) -> Any:
        """The object that a name means which the function does not assign. Raises NameError."""
        if name in self._closure:
            return self._closure[name].cell_contents
        for scope in (self.function.__globals__, vars(builtins)):
            if name in scope:
                return scope[name]
        raise NameError(f"{self.name}: {name} is not defined")


@cache
def _definitions(path: str) -> dict[int, list[Tree]]:
    """Functions of a source file by their first line, that of a decorator included."""
    found: dict[int, list[Tree]] = {}
    for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
        if isinstance(node, Tree):
            decorators = getattr(node, "decorator_list", ())
            found.setdefault(min([node.lineno, *(d.lineno for d in decorators)]), []).append(node)
    return found
