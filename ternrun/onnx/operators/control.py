"""If, Loop and Scan. Their kernels take the run's budget, the node's inputs, and the captured values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.format.graph import Graph, Value
from ternrun.onnx.format.limits import Budget, check_tensor_size
from ternrun.onnx.format.tensors import CODES, DTYPES
from ternrun.onnx.operators.table import Array, Kernel, OpKernelInfo


class Body(Protocol):
    """A subgraph that can be run."""

    graph: Graph
    captures: tuple[str, ...]  # names that it reads from the graphs around it

    def run(self, budget: Budget, values: Sequence[Any]) -> list[Any]:
        """The outputs for the inputs followed by the captured values."""
        ...


def single(x: Any, what: str) -> Any:
    """The only element of a tensor. Raises LoadError if there are more or fewer."""
    if not isinstance(x, np.ndarray) or x.size != 1:
        raise LoadError(f"wants a single {what}")
    return x.reshape(()).item()


def _captured(bodies: Mapping[str, Body], values: Sequence[Any]) -> dict[str, list[Any]]:
    """Split the captured values by body."""
    out, at = {}, 0
    for name, body in bodies.items():
        out[name] = list(values[at : at + len(body.captures)])
        at += len(body.captures)
    return out


def if_kernel(info: OpKernelInfo, bodies: Mapping[str, Body]) -> Kernel:
    """Runs one of two graphs without inputs."""
    if set(bodies) != {"then_branch", "else_branch"}:
        raise LoadError("wants a then_branch and an else_branch")

    def kernel(budget: Budget, condition: Array, *captured: Any) -> tuple[Any, ...]:
        name = "then_branch" if single(condition, "condition") else "else_branch"
        return tuple(bodies[name].run(budget, _captured(bodies, captured)[name]))

    return kernel


def loop_kernel(info: OpKernelInfo, bodies: Mapping[str, Body]) -> Kernel:
    """Runs a body `trips` times or until its condition is false; carries values and collects outputs."""
    body = _only(bodies)
    inputs = len(info.node.inputs)
    carried = len(body.graph.inputs) - 2
    if carried < 0 or inputs > carried + 2 or len(body.graph.outputs) < carried + 1:
        raise LoadError("its body's inputs and outputs do not fit its own")
    scanned = body.graph.outputs[carried + 1 :]

    def kernel(budget: Budget, *values: Any) -> tuple[Any, ...]:
        given, captured = [*values[:inputs], *[None] * (carried + 2 - inputs)], list(values[inputs:])
        trips = None if given[0] is None else int(single(given[0], "number of trips"))
        going = True if given[1] is None else bool(single(given[1], "condition"))
        state, collected, i = given[2:], [list[Any]() for _ in scanned], 0
        while going and (trips is None or i < trips):
            budget.spend(1)
            out = body.run(budget, [np.array(i, np.int64), np.array(going), *state, *captured])
            going = bool(single(out[0], "condition"))
            state = out[1 : 1 + carried]
            for column, value in zip(collected, out[1 + carried :], strict=True):
                column.append(value)
            _bounded(collected)
            i += 1
        return (*state, *(_stacked(c, v, 0) for c, v in zip(collected, scanned, strict=True)))

    return kernel


def scan_kernel(info: OpKernelInfo, bodies: Mapping[str, Body]) -> Kernel:
    """Runs a body along an axis of some inputs, carries a state, and collects outputs along an axis."""
    body, old = _only(bodies), info.opset < 9
    walks = info.integer("num_scan_inputs")
    states = len(info.node.inputs) - walks - old
    results = len(body.graph.outputs) - states
    if walks < 1 or states < 0 or results < 0 or len(body.graph.inputs) != states + walks:
        raise LoadError("its body's inputs and outputs do not fit its own")

    def option(name: str, count: int) -> tuple[int, ...]:
        stated = info.integers(name) or (0,) * count
        if len(stated) != count:
            raise LoadError(f"states {len(stated)} {name} for {count}")
        return stated

    axes = option("scan_input_axes", walks)
    backwards = option("directions" if old else "scan_input_directions", walks)
    out_axes, out_backwards = option("scan_output_axes", results), option("scan_output_directions", results)

    def walk(budget: Budget, given: Sequence[Any], captured: Sequence[Any]) -> list[Any]:
        state = list(given[:states])
        rows = [
            np.moveaxis(x, a, 0)[:: -1 if b else 1] for x, a, b in zip(given[states:], axes, backwards, strict=True)
        ]
        if len({len(r) for r in rows}) != 1:
            raise LoadError(f"walks along axes of the lengths {[len(r) for r in rows]}")
        collected = [list[Any]() for _ in range(results)]
        for step in zip(*rows, strict=True):
            budget.spend(1)
            out = body.run(budget, [*state, *step, *captured])
            state = out[:states]
            for column, value in zip(collected, out[states:], strict=True):
                column.append(value)
            _bounded(collected)
        ordered = [c[:: -1 if b else 1] for c, b in zip(collected, out_backwards, strict=True)]
        values = body.graph.outputs[states:]
        return state + [_stacked(c, v, a) for c, v, a in zip(ordered, values, out_axes, strict=True)]

    def kernel(budget: Budget, *values: Any) -> tuple[Any, ...]:
        n = len(info.node.inputs)
        if not old:
            return tuple(walk(budget, values[:n], values[n:]))
        if values[0] is not None:
            raise LoadError("has sequence lengths, which are not supported")
        batch = [walk(budget, [x[b] for x in values[1:n]], values[n:]) for b in range(len(values[1]))]
        return tuple(np.stack(column) for column in zip(*batch, strict=True))

    return kernel


def _only(bodies: Mapping[str, Body]) -> Body:
    """The only body of a node."""
    if set(bodies) != {"body"}:
        raise LoadError("wants one body")
    return bodies["body"]


def _bounded(collected: Sequence[list[Any]]) -> None:
    """Raises LoadError if a collected output exceeds the size of one tensor."""
    for column in collected:
        if isinstance(column[-1], np.ndarray):
            check_tensor_size([len(column), column[-1].size], column[-1].itemsize)


def _stacked(values: list[Any], declared: Value, axis: int) -> Array:
    """Stack collected values; an empty array of the declared type and shape if there are none."""
    if values:
        return np.stack(values, axis)
    kind = DTYPES[CODES[declared.dtype]].numpy if declared.dtype else "<f4"
    shape = [n if isinstance(n, int) else 0 for n in declared.shape or ()]
    shape.insert(axis, 0)
    return np.empty(shape, kind)


CONTROL: dict[str, Callable[[OpKernelInfo, Mapping[str, Body]], Kernel]] = {
    "If": if_kernel, "Loop": loop_kernel, "Scan": scan_kernel,
}  # fmt: skip
