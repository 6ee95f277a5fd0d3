"""Fuse steps of a plan that one kernel computes: a product with its sum, and decomposed GELU and SiLU.

Steps are fused if no other step reads the values between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ternrun.onnx.operators import rowwise
from ternrun.onnx.operators.activations import exact_gelu
from ternrun.onnx.operators.table import Array, Kernel
from ternrun.onnx.runtime.step import Step

ROOT = 2**0.5
INPUTS = {"MatMul": 2, "Add": 2, "Mul": 2, "Div": 2, "Erf": 1, "Sigmoid": 1}


def _plain(step: Step, op: str) -> bool:
    """Whether the step is this operator of ONNX's own set, with its usual number of inputs and no attributes."""
    node, inputs = step.node, INPUTS[op]
    called = (node.domain, node.op, len(node.inputs), len(node.outputs)) == ("", op, inputs, 1)
    return called and len(step.inputs) == inputs and not (node.attributes or step.takes_budget)


class Fusion:
    """Steps in order, their constants by slot, and the slots that are read from outside."""

    def __init__(self, steps: Sequence[Step], constants: Mapping[int, Any], outputs: Iterable[int]) -> None:
        self._steps: list[Step | None] = list(steps)
        self._constants = constants
        self._reads = Counter([*outputs, *(slot for step in steps for slot in step.inputs)])
        self._maker = {step.outputs[0]: at for at, step in enumerate(steps) if len(step.outputs) == 1}

    def run(self) -> list[Step]:
        """The remaining steps."""
        for at, step in enumerate(self._steps):
            if step is not None and _plain(step, "Add"):
                self._product(at, step)
            elif step is not None and _plain(step, "Mul"):
                self._gelu(at, step)
                self._silu(at, step)
        return [step for step in self._steps if step is not None]

    def _made_by(self, slot: int, op: str) -> Step | None:
        """The step that writes this slot, if its operator is `op` and the slot has one reader."""
        step = self._steps[self._maker[slot]] if slot in self._maker and self._reads[slot] == 1 else None
        return step if step is not None and _plain(step, op) else None

    def _replace(self, at: int, step: Step, *gone: Step) -> None:
        """Replace step `at`, and remove others."""
        for old in gone:
            self._steps[self._maker[old.outputs[0]]] = None
        self._steps[at] = step

    def _product(self, at: int, step: Step) -> None:
        """Fuse MatMul and Add."""
        for slot, other in (step.inputs, step.inputs[::-1]):
            product = self._made_by(slot, "MatMul")
            if product is not None:
                kernel = product.kernel

                def summed(a: Array, b: Array, c: Array, kernel: Any = kernel) -> Any:
                    return kernel(a, b, plus=c)

                inputs = (*product.inputs, other)
                fused = replace(step, node=product.node, kernel=summed, inputs=inputs, fresh=True, reuse=())
                self._replace(at, fused, product)
                return

    def _gelu(self, at: int, last: Step) -> None:
        """Fuse x / sqrt 2, Erf, + 1, then times x and a half, in any order."""
        for outer in (last.inputs, last.inputs[::-1]):
            inner = self._made_by(outer[0], "Mul")
            if inner is None:
                continue
            for a, b in (inner.inputs, inner.inputs[::-1]):
                # (1 + erf) * x * half, (1 + erf) * half * x, x * half * (1 + erf)
                for sum_, x, half in ((a, b, outer[1]), (a, outer[1], b), (outer[1], a, b)):
                    chain = self._one_plus_erf(sum_, x)
                    if chain and self._is(half, 0.5):
                        fused = replace(last, kernel=exact_gelu, inputs=(x,), fresh=True, reuse=(0,))
                        self._replace(at, fused, inner, *chain)
                        return

    def _silu(self, at: int, last: Step) -> None:
        """Fuse x times Sigmoid of x."""
        for slot, x in (last.inputs, last.inputs[::-1]):
            sigmoid = self._made_by(slot, "Sigmoid")
            if sigmoid is not None and sigmoid.inputs[0] == x:
                kernel = _silu(sigmoid.kernel, last.kernel)
                self._replace(at, replace(last, kernel=kernel, inputs=(x,), fresh=True, reuse=(0,)), sigmoid)
                return

    def _one_plus_erf(self, slot: int, x: int) -> tuple[Step, ...]:
        """The steps that compute 1 + erf(x / sqrt 2)."""
        plus = self._made_by(slot, "Add")
        for one, of in () if plus is None else (plus.inputs, plus.inputs[::-1]):
            erf = self._made_by(of, "Erf")
            if plus is None or erf is None or not self._is(one, 1.0):
                continue
            scaled = self._made_by(erf.inputs[0], "Div") or self._made_by(erf.inputs[0], "Mul")
            if scaled is None or scaled.inputs[0] != x:
                continue
            if self._is(scaled.inputs[1], ROOT if scaled.node.op == "Div" else 1 / ROOT):
                return plus, erf, scaled
        return ()

    def _is(self, slot: int, value: float) -> bool:
        """Whether a slot always holds this number, in float32."""
        found = self._constants.get(slot)
        if not isinstance(found, np.ndarray) or found.ndim or found.dtype != np.float32:
            return False
        return abs(float(found) - value) < 1e-6 * value


def _silu(sigmoid: Kernel, times: Kernel) -> Kernel:
    """SiLU on the engine's threads for a large x, by the two operators for a small one."""

    def kernel(x: Array, out: Array | None = None) -> Any:
        return rowwise.elementwise("silu", x, out) if rowwise.is_large(x) else times(x, sigmoid(x), out=out)

    return kernel
