"""Muon: momentum SGD whose update matrices are orthogonalized (kellerjordan.github.io/posts/muon).

Orthogonalization is a Newton-Schulz iteration with the coefficients of Polar Express (arXiv 2505.16932), which are more
exact after five steps than constant coefficients. Matrices of one shape are processed as a batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ternrun.train.distributed.sharding import full_tensor, shard_like

COEFFICIENTS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def orthogonalize(stack: Tensor) -> Tensor:
    """Approximately U V^T of each matrix in `stack` (n, rows, cols), computed and returned in bf16."""
    x = stack.bfloat16()
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) * 1.02 + 1e-6)
    for a, b, c in COEFFICIENTS:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Muon for the matrices of a network, not for embeddings, head or vectors.

    A step changes a matrix (rows, cols) by lr * sqrt(max(1, rows / cols)) * U V^T and shrinks it by lr * weight_decay.
    """

    def __init__(self, params: Any, lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Apply one update with Nesterov momentum."""
        del closure
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for (rows, cols), parameters in by_shape.items():
                gradients = [full_tensor(self._nesterov(p, group["momentum"])) for p in parameters]
                updates = orthogonalize(torch.stack(gradients))
                rate = group["lr"] * max(1.0, rows / cols) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(
                        shard_like(update.to(parameter.dtype), parameter), alpha=-rate
                    )

    def _nesterov(self, parameter: Tensor, momentum: float) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        average: Tensor = state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(average, momentum)
