from __future__ import annotations

import pytest
import torch

from ternrun.train.config import OptimizerConfig
from ternrun.train.optim.lion import Lion
from ternrun.train.optim.muon import Muon, orthogonalize
from ternrun.train.optim.schedule import decay_factor, lr_factor


@pytest.mark.parametrize("shape", [(3, 48, 48), (2, 32, 80), (2, 80, 32)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    stack = torch.randn(shape)
    made = orthogonalize(stack).float()
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.7
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(stack, full_matrices=False)
    assert (made - u @ v).abs().mean() < 0.05


def test_muon_descends_and_its_step_has_the_stated_size() -> None:
    target, weight = torch.randn(64, 16), torch.nn.Parameter(torch.zeros(64, 16))
    optimizer = Muon([weight], lr=0.01, momentum=0.9, weight_decay=0.0)
    (weight - target).square().sum().backward()
    optimizer.step()
    assert weight.norm().item() == pytest.approx(0.01 * 2 * 4, rel=0.1)  # lr * sqrt(64 / 16) * sqrt(rank)
    losses = []
    for _ in range(300):
        optimizer.zero_grad()
        loss = (weight - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_lion_moves_by_the_sign() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.0]))
    optimizer = Lion([weight], lr=0.1)
    weight.grad = torch.tensor([3.0, -1e-6, 0.0])
    optimizer.step()
    assert torch.allclose(weight, torch.tensor([0.9, -1.9, 0.0]))


def test_schedule_warms_up_stays_and_decays() -> None:
    config = OptimizerConfig(steps=100, warmup_steps=10, decay_steps=20, decay="linear")
    assert [lr_factor(s, config) for s in (0, 4, 9, 50, 80)] == pytest.approx([0.1, 0.5, 1, 1, 1])
    assert [lr_factor(s, config) for s in (90, 99, 100, 200)] == pytest.approx([0.5, 0.05, 0, 0])
    root = OptimizerConfig(steps=100, warmup_steps=0, decay_steps=20)
    assert decay_factor(85, root) == pytest.approx(0.5)
    assert decay_factor(10**9, OptimizerConfig(warmup_steps=5)) == 1.0
