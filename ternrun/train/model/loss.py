"""Cross entropy over a large vocabulary without ever holding all logits: forward and backward go chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Terms = Callable[[Tensor, Tensor, float, float], tuple[Tensor, Tensor, Tensor]]
CHUNK = 1024  # positions whose logits exist at one time


def chunk_terms(logits: Tensor, targets: Tensor, z_loss: float, entropy: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over positions of nats and of the added terms, and the gradient (n, V) in the type of `logits` (n, V).

    Positions with a negative target count for nothing. One pointwise pass and two reductions: worth compiling.
    """
    wide, learned = logits.float(), (targets >= 0).float()[:, None]
    wanted = torch.arange(logits.shape[1], device=logits.device) == targets[:, None]
    normaliser = torch.logsumexp(wide, -1, keepdim=True)
    grad = (wide - normaliser).exp() * (1 + 2 * z_loss * normaliser) - wanted.float()
    nats = ((normaliser - wide.gather(1, targets.clamp(min=0)[:, None])) * learned).sum()
    added = z_loss * (normaliser.square() * learned).sum()
    if entropy:
        logs = wide - normaliser
        shares = logs.exp()
        uncertainty = -(shares * logs).sum(-1, keepdim=True)
        grad = grad + entropy * shares * (logs + uncertainty)
        added = added - entropy * (uncertainty * learned).sum()
    return nats, added, (grad * learned).to(logits.dtype)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes the gradients together with the loss, since both need the same logits."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, z_loss: float, entropy: float, terms: Terms
    ) -> tuple[Tensor, Tensor]:
        weight = head.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden)
        grad_head = torch.zeros(head.shape, dtype=torch.float32, device=head.device)
        total, penalty = hidden.new_zeros((), dtype=torch.float32), hidden.new_zeros((), dtype=torch.float32)
        for i in range(0, hidden.shape[0], CHUNK):
            part = hidden[i : i + CHUNK]
            nats, added, grad = terms(part @ weight.t(), targets[i : i + CHUNK], z_loss, entropy)
            total, penalty = total + nats, penalty + added
            grad_hidden[i : i + CHUNK] = grad @ weight
            grad_head += (grad.t() @ part).float()
        n = (targets >= 0).sum().clamp(min=1)
        ctx.save_for_backward(grad_hidden.div_(n), grad_head.div_(n))
        loss = total / n
        ctx.mark_non_differentiable(loss_only := loss.clone())
        return loss + penalty / n, loss_only

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Any:
        grad_hidden, grad_head = ctx.saved_tensors
        return grad_hidden * grad, grad_head * grad, None, None, None, None


def cross_entropy(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    z_loss: float = 0.0,
    entropy: float = 0.0,
    terms: Terms = chunk_terms,
) -> tuple[Tensor, Tensor]:
    """(objective, loss): mean negative log-likelihood in nats of hidden (N, C) @ head (V, C) against targets (N,), of
    which negative ones are left out.

    The objective adds z_loss * mean(logsumexp**2), which keeps logits from drifting (PaLM, arXiv 2204.02311), and takes
    away entropy * the mean entropy of the predictions, which keeps them from overconfidence (arXiv 1701.06548).
    `terms` may be a compiled `chunk_terms`.
    """
    objective, loss = _ChunkedCrossEntropy.apply(hidden, head, targets, z_loss, entropy, terms)
    return objective, loss
