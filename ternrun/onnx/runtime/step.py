"""One step of an execution plan: an operator's kernel, and the slots that it reads and writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ternrun.onnx.format.graph import Node

LARGE = 1 << 16  # bytes of the smallest input that is worth overwriting


@dataclass(slots=True)
class Step:
    """One operator of a plan. Slot 0 holds None."""

    node: Node
    kernel: Callable[..., Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]  # -1: no step reads it
    fresh: bool = False  # results share no memory with inputs
    reuse: tuple[int, ...] = ()  # positions of inputs that may be overwritten
    takes_budget: bool = False
    dead: tuple[int, ...] = ()  # slots that no later step reads

    def run(self, arguments: list[Any]) -> Any:
        """The kernel's results.

        A large result overwrites an input that is dead afterwards and has its shape and type.
        """
        for position in self.reuse:
            x = arguments[position]
            if x.nbytes > LARGE and x.flags.owndata:
                others = [a for a in arguments if a is not x]
                if all(a.dtype == x.dtype and np.broadcast_shapes(a.shape, x.shape) == x.shape for a in others):
                    return self.kernel(*arguments, out=x)
        return self.kernel(*arguments)
