"""Cross entropy over a large vocabulary, in chunks of positions, so that all logits never exist at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Terms = Callable[[Tensor, Tensor, float, float], tuple[Tensor, Tensor, Tensor]]
CHUNK = 1024  # positions per chunk


def chunk_terms(logits: Tensor, targets: Tensor, z_loss: float, entropy: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over positions of nats and of penalty terms, and the gradient (n, V) in the dtype of `logits` (n, V).

    Positions with a negative target are ignored. torch.compile fuses this into one pointwise pass and two reductions.
    """
    wide, learned = logits.float(), (targets >= 0).float()[:, None]
    one_hot = torch.arange(logits.shape[1], device=logits.device) == targets[:, None]
    normalizer = torch.logsumexp(wide, -1, keepdim=True)
    grad = (wide - normalizer).exp() * (1 + 2 * z_loss * normalizer) - one_hot.float()
    nats = ((normalizer - wide.gather(1, targets.clamp(min=0)[:, None])) * learned).sum()
    penalty_sum = z_loss * (normalizer.square() * learned).sum()
    if entropy:
        log_probs = wide - normalizer
        probs = log_probs.exp()
        position_entropy = -(probs * log_probs).sum(-1, keepdim=True)
        grad = grad + entropy * probs * (log_probs + position_entropy)
        penalty_sum = penalty_sum - entropy * (position_entropy * learned).sum()
    return nats, penalty_sum, (grad * learned).to(logits.dtype)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes the gradients in the forward pass, since they need the same logits as the loss."""

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
            nats, penalty_sum, grad = terms(part @ weight.t(), targets[i : i + CHUNK], z_loss, entropy)
            total, penalty = total + nats, penalty + penalty_sum
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
    """Objective and loss of logits hidden (N, C) @ head (V, C)^T for targets (N,); negative targets are ignored.

    The loss is the mean negative log-likelihood in nats. The objective adds z_loss * mean(logsumexp**2), which keeps
    logits from drifting (PaLM, arXiv 2204.02311), and subtracts entropy * the mean entropy of the predictions, which
    prevents overconfidence (arXiv 1701.06548). `terms` can be a compiled `chunk_terms`.
    """
    objective, loss = _ChunkedCrossEntropy.apply(hidden, head, targets, z_loss, entropy, terms)
    return objective, loss
