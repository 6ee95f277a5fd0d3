from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ternrun.train.model.attention import BLOCK, attention, blockwise
from ternrun.train.model.dropout import Dropout


@pytest.mark.parametrize(("heads", "groups", "length"), [(4, 2, 2 * BLOCK), (2, 2, BLOCK + 7), (4, 1, 5), (2, 1, 1100)])
def test_blocks_give_what_torchs_kernel_gives(heads: int, groups: int, length: int) -> None:
    """Values and gradients, for lengths that are and are not multiples of a block."""
    q = torch.randn(2, heads, length, 16, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(2, groups, length, 16, dtype=torch.float64, requires_grad=True) for _ in range(2))
    ours = attention(q, k, v)
    theirs = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    weights = torch.randn_like(theirs)
    for a, b in zip(
        (ours, *torch.autograd.grad((ours * weights).sum(), (q, k, v))),
        (theirs, *torch.autograd.grad((theirs * weights).sum(), (q, k, v))),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_dropout_leaves_the_mean() -> None:
    q, k = torch.randn(2, 1, 2, 64, 8)
    v = torch.ones(1, 2, 64, 8)
    made = blockwise(q, k, v, Dropout.draw(0.5, 1, q.device)[0])
    assert made.mean().item() == pytest.approx(1, abs=0.1)
    assert made.std().item() > 0.05
