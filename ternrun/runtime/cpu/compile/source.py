"""The syntax tree of a kernel function, and the objects that its global names refer to."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

Tree = ast.FunctionDef | ast.Lambda


class KernelFunction:
    """A Python function used in kernels; `lowering.py` compiles it for the types it is called with."""

    def __init__(self, function: Callable[..., Any], *, noinline: bool = False) -> None:
        self.function, self.noinline = function, noinline
        self.name = function.__qualname__
        code = function.__code__
        self.arguments = code.co_varnames[: code.co_argcount]
        self._closure = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))

    def __call__(self, *args: Any) -> Any:
        """Raises TypeError: vectors exist only in machine code."""
        raise TypeError(f"{self.name} runs in machine code only")

    @property
    def tree(self) -> Tree:
        """The function's definition. Raises LookupError if the source file does not contain it."""
        code = self.function.__code__
        for found in _definitions(code.co_filename).get(code.co_firstlineno, ()):
            if tuple(argument.arg for argument in found.args.args) == self.arguments:
                return found
        raise LookupError(f"{code.co_filename}:{code.co_firstlineno} does not show {self.name}")

    def meaning(self, name: str) -> Any:
        """The object that a name refers to which is not a local variable. Raises NameError."""
        if name in self._closure:
            return self._closure[name].cell_contents
        for scope in (self.function.__globals__, vars(builtins)):
            if name in scope:
                return scope[name]
        raise NameError(f"{self.name}: {name} is not defined")


@cache
def _definitions(path: str) -> dict[int, list[Tree]]:
    """The functions of a source file by their first line, including decorators."""
    found: dict[int, list[Tree]] = {}
    for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
        if isinstance(node, Tree):
            decorators = getattr(node, "decorator_list", ())
            found.setdefault(min([node.lineno, *(d.lineno for d in decorators)]), []).append(node)
    return found
