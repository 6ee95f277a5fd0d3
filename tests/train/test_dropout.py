"""Hashed dropout masks: their share, their independence, and what decides them."""

from __future__ import annotations

import pytest
import torch

from ternrun.train.model.dropout import Dropout, apply_dropout

CPU = torch.device("cpu")
SHAPE = torch.Size((64, 128, 128))  # 2**20 elements: shares have a standard error of 0.0005 at most


def drawn(rate: float, seed: int) -> Dropout:
    torch.manual_seed(seed)
    (made,) = Dropout.draw(rate, 1, CPU)
    assert made is not None
    return made


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("place", [0, 64, 2**20 + 1])
def test_share_of_what_is_kept(rate: float, place: int) -> None:
    mask = drawn(rate, seed=3).mask(SHAPE, place)
    assert mask.float().mean().item() == pytest.approx(1 - rate, abs=0.003)
    rows = mask.float().mean((1, 2))
    assert rows.std().item() < 3 * (rate * (1 - rate) / 128**2) ** 0.5


def test_masks_are_independent() -> None:
    """Of their neighbours along every axis, of other places, of other seeds."""
    one = drawn(0.5, seed=1)
    mask = one.mask(SHAPE, 0).float() - 0.5
    others = [mask.roll(1, axis) for axis in range(3)]
    others += [one.mask(SHAPE, 1).float() - 0.5, drawn(0.5, seed=2).mask(SHAPE, 0).float() - 0.5]
    assert all(abs((mask * other).mean().item()) < 0.002 for other in others)


def test_the_seed_decides() -> None:
    first, again, other = drawn(0.2, 7), drawn(0.2, 7), drawn(0.2, 8)
    assert torch.equal(first.mask(SHAPE, 5), again.mask(SHAPE, 5))
    assert not torch.equal(first.mask(SHAPE, 5), other.mask(SHAPE, 5))


def test_values_and_gradients() -> None:
    x = torch.randn(8, 100, requires_grad=True)
    dropout = drawn(0.25, 0)
    made = apply_dropout(x, dropout, 3)
    mask = dropout.mask(x.shape, 3)
    torch.testing.assert_close(made, torch.where(mask, x / 0.75, 0.0))
    (gradient,) = torch.autograd.grad(made.sum(), x)
    torch.testing.assert_close(gradient, mask / 0.75)
    assert apply_dropout(x, None) is x
    assert Dropout.draw(0.0, 2, CPU) == [None, None]
