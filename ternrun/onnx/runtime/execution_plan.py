"""The execution plan of a graph: a list of steps that is built once and run many times.

Building folds constants, fuses steps (`fusion.py`), finds the last reader of each result, and lets element-wise
operators write over an input that has no later reader. Subgraphs and functions have plans of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ternrun.errors import LoadError, TernrunError
from ternrun.onnx.format.graph import Function, Graph, Node, Value
from ternrun.onnx.format.limits import BIG, MEMORY, Budget, limited_to
from ternrun.onnx.format.tensors import OnnxTensor
from ternrun.onnx.operators import table
from ternrun.onnx.operators.control import CONTROL
from ternrun.onnx.operators.dispatch import (
    NeedsTypes,
    Scope,
    foldable,
    graphs_of,
    own_kernel,
    resolved,
    specification,
)
from ternrun.onnx.operators.reference import reference_kernel
from ternrun.onnx.runtime.fusion import Fusion
from ternrun.onnx.runtime.step import Step

MAX_DEPTH = 64  # nesting of functions and graphs
FOLD = 1 << 26  # largest folded tensor in bytes, or 16 times its largest input


class ExecutionPlan:
    """A graph's steps. `run` takes a value for each name in `inputs`, then for each name in `captures`."""

    def __init__(self, graph: Graph, scope: Scope, outer: frozenset[str] = frozenset(), depth: int = 0) -> None:
        if depth > MAX_DEPTH:
            raise LoadError(f"graphs and functions are nested more than {MAX_DEPTH} deep")
        self.graph = graph
        self._scope, self._depth = scope, depth
        names = [v.name for v in graph.inputs]
        local = {*names, *graph.initializers, *(o for n in graph.nodes for o in n.outputs)}
        self.captures = tuple(sorted({n for n in _read(graph) if n not in local and n in outer}))
        self.inputs = tuple(names)
        self._slots: dict[str, int] = {"": 0}
        self._values: list[Any] = [None]
        for name, tensor in graph.initializers.items():
            self._values[self._slot(name)] = constant(tensor)
        self._constant = set(range(len(self._values)))
        self._feeds = [self._slot(n) for n in (*self.inputs, *self.captures)]
        self._defaults = {s: self._values[s] for s in self._feeds if s in self._constant}
        self._constant -= set(self._feeds)
        known = frozenset(outer | local)
        self.steps: list[Step] = []
        for node in graph.nodes:
            self._add(resolved(node, scope), known)
        self._outputs = [self._slots.get(v.name, 0) for v in graph.outputs]
        constants = {slot: self._values[slot] for slot in self._constant}
        self.steps = Fusion(self.steps, constants, self._outputs).run()
        self._find_last_readers()

    def run(self, budget: Budget, values: Sequence[Any]) -> list[Any]:
        """Outputs in order, for the values of `inputs` and `captures`; an input that is None takes its initializer.

        Raises LoadError naming the node that failed. Results may share memory with constants, which are read-only.
        """
        v = self._values.copy()
        for slot, value in zip(self._feeds, values, strict=True):
            v[slot] = self._defaults.get(slot) if value is None else value
        budget.spend(len(self.steps))
        step: Step | None = None
        held = 0
        try:
            for step in self.steps:
                arguments = [v[i] for i in step.inputs]
                out = step.kernel(budget, *arguments) if step.takes_budget else step.run(arguments)
                for slot, value in zip(step.outputs, out if type(out) is tuple else (out,), strict=False):
                    if slot >= 0:
                        v[slot] = value = value if type(value) is np.ndarray else _value(value)
                        if type(value) is np.ndarray and value.nbytes > BIG and value.base is None:
                            held += value.nbytes
                            budget.hold(value.nbytes)
                for slot in step.dead:
                    value, v[slot] = v[slot], None
                    if type(value) is np.ndarray and value.nbytes > BIG and value.base is None:
                        held -= value.nbytes
                        budget.hold(-value.nbytes)
        except TernrunError as e:
            raise _named(step, e) from e
        except Exception as e:
            raise LoadError(f"{_at(step)} failed: {_reason(e)}") from e
        finally:
            budget.release(held)
        return [v[slot] for slot in self._outputs]

    def _slot(self, name: str) -> int:
        if name not in self._slots:
            self._slots[name] = len(self._values)
            self._values.append(None)
        return self._slots[name]

    def _add(self, node: Node, known: frozenset[str]) -> None:
        try:
            step = self._step(node, known)
        except TernrunError as e:
            raise _at_node(node, e) from e
        except Exception as e:
            raise LoadError(f"{node} cannot be prepared: {_reason(e)}") from e
        if not self._fold(step):
            self.steps.append(step)

    def _step(self, node: Node, known: frozenset[str]) -> Step:
        reads = [self._slots[n] for n in node.inputs]
        writes = tuple(self._slot(n) if n else -1 for n in node.outputs)
        if node.op in CONTROL and node.domain == "":
            bodies = {n: ExecutionPlan(g, self._scope, known, self._depth + 1) for n, g in graphs_of(node).items()}
            reads += [self._slots[n] for body in bodies.values() for n in body.captures]
            call = table.OpKernelInfo(node, self._scope.opsets.get("", 1), _never)
            return Step(node, CONTROL[node.op](call, bodies), tuple(reads), writes, takes_budget=True)
        function = self._scope.functions.get((node.domain, node.op, node.overload))
        if function is not None:
            return Step(node, self._function(node, function), tuple(reads), writes, takes_budget=True)
        constants = tuple(self._values[i] if i in self._constant else None for i in reads)
        own = own_kernel(node, self._scope, () if all(i in self._constant for i in reads) else constants)
        if own is not None:
            kernel, fresh, reuse = own
            return Step(node, kernel, tuple(reads), writes, fresh, (0, 1) if reuse else ())
        reference = None if graphs_of(node) else reference_kernel(node, self._scope.opsets, node.attributes)
        if reference is not None:
            return Step(node, reference, tuple(reads), writes)
        try:
            function = specification(node, self._scope, None)
        except NeedsTypes:
            return Step(node, self._typed(node), tuple(reads), writes, takes_budget=True)
        if function is None:
            raise LoadError("is an operator that ternrun does not know")
        return Step(node, self._function(node, function, trusted=True), tuple(reads), writes, takes_budget=True)

    def _function(self, node: Node, function: Function, trusted: bool = False) -> Callable[..., Any]:
        """The plan of a function with this call's attributes, as a kernel."""
        attributes = {**function.defaults, **node.attributes}
        opsets = {**self._scope.opsets, **function.opsets} if trusted else function.opsets
        scope = Scope(self._scope.functions, opsets, attributes, trusted)
        body = Graph(
            function.name, function.nodes, {}, tuple(map(Value, function.inputs)), tuple(map(Value, function.outputs))
        )
        if len(node.inputs) > len(function.inputs):
            raise LoadError(f"has {len(node.inputs)} inputs, but its function takes {len(function.inputs)}")
        plan = ExecutionPlan(body, scope, depth=self._depth + 1)

        def kernel(budget: Budget, *values: Any) -> tuple[Any, ...]:
            missing = len(function.inputs) - len(values)
            return tuple(plan.run(budget, [*values, *[None] * missing]))

        return kernel

    def _typed(self, node: Node) -> Callable[..., Any]:
        """A kernel that makes its plan when it sees the types of the inputs."""
        plans: dict[tuple[str, ...], Callable[..., Any]] = {}

        def kernel(budget: Budget, *values: Any) -> Any:
            key = tuple(str(getattr(v, "dtype", type(v))) for v in values)
            if key not in plans:
                function = specification(node, self._scope, values)
                if function is None or len(plans) > 64:
                    raise LoadError("is an operator that ternrun does not know for these types")
                plans[key] = self._function(node, function, trusted=True)
            return plans[key](budget, *values)

        return kernel

    def _fold(self, step: Step) -> bool:
        """Run a step whose inputs are all constant. False: the step fails now or cannot fold, and stays in the plan."""
        if not foldable(step.node) or not all(i in self._constant for i in step.inputs):
            return False
        largest = max((v.nbytes for i in step.inputs if isinstance(v := self._values[i], np.ndarray)), default=0)
        try:
            with limited_to(min(max(FOLD, 16 * largest), MEMORY // 8)), np.errstate(all="ignore"):
                values = [self._values[i] for i in step.inputs]
                budget = Budget(10_000, MEMORY // 8)
                out = step.kernel(budget, *values) if step.takes_budget else step.kernel(*values)
        except Exception:
            return False
        results = [_value(o) for o in (out if type(out) is tuple else (out,))]
        if any(not isinstance(r, np.ndarray) for r in results) or len(results) < len(step.outputs):
            return False
        for slot, result in zip(step.outputs, results, strict=False):
            if slot >= 0:
                self._values[slot] = frozen(result)
                self._constant.add(slot)
        return True

    def _find_last_readers(self) -> None:
        """Set `dead` and `reuse` of each step from the last reader of each value."""
        last: dict[int, int] = {}
        for at, step in enumerate(self.steps):
            last.update(dict.fromkeys(step.inputs, at))
            for slot in step.outputs:
                last.setdefault(slot, at)
        keep = {0, -1, *self._constant, *self._outputs}
        dead: dict[int, list[int]] = {}
        for slot, at in last.items():
            if slot not in keep:
                dead.setdefault(at, []).append(slot)
        # slots that are produced by fresh steps and read only by fresh steps
        private = {s for step in self.steps if step.fresh for s in step.outputs}
        private -= {s for step in self.steps if not step.fresh for s in step.inputs}
        for at, step in enumerate(self.steps):
            step.dead = tuple(dead.get(at, ()))
            free = private & set(step.dead)
            step.reuse = tuple(p for p in step.reuse if p < len(step.inputs) and step.inputs[p] in free)


def _read(graph: Graph) -> Iterable[str]:
    """All names that a graph reads, including names that its subgraphs read from outside."""
    for node in graph.nodes:
        yield from node.inputs
        for inner in graphs_of(node).values():
            own = {*(v.name for v in inner.inputs), *inner.initializers, *(o for n in inner.nodes for o in n.outputs)}
            yield from (n for n in _read(inner) if n not in own)
    for value in graph.outputs:
        yield value.name


def constant(tensor: OnnxTensor) -> np.ndarray[Any, Any]:
    """An initializer as a read-only array. An unaligned one is copied once, because numpy would copy it at each use."""
    array = tensor.array()
    return frozen(array if array.flags.aligned else array.copy())


def frozen(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A read-only view of the array."""
    view = array.view()
    view.flags.writeable = False
    return view


def _value(x: Any) -> Any:
    """Convert numpy scalars to arrays; sequences, optional values and maps stay."""
    return x if x is None or isinstance(x, (np.ndarray, list, dict)) else np.asarray(x)


def _never() -> table.Kernel:
    raise LoadError("is not supported in this form")


def _at(step: Step | None) -> str:
    return "the graph" if step is None else str(step.node)


def _reason(e: Exception) -> str:
    """One line from an error that numpy or the reference raised."""
    while e.__cause__ is not None and isinstance(e.__cause__, Exception):
        e = e.__cause__
    text = " ".join(str(e).split())[:200]
    return text or type(e).__name__


def _at_node(node: Node, e: TernrunError) -> TernrunError:
    text = str(e)
    return e if text.startswith("node ") or not isinstance(e, LoadError) else LoadError(f"{node} {text}")


def _named(step: Step | None, e: TernrunError) -> TernrunError:
    return e if step is None else _at_node(step.node, e)
