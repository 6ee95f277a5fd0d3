from __future__ import annotations

import numpy as np
import pytest
import torch

from ternrun.train.model.bitlinear import BitLinear, Granularity, quantize_activations, round_to_half, ternarize


def test_rounding_to_half_is_numpys() -> None:
    x = torch.cat(
        (torch.rand(10000) * 10, 2.0 ** torch.arange(-14.0, 15.0), torch.tensor([1 + 2.0**-11, 1 + 3 * 2.0**-11]))
    )
    np.testing.assert_array_equal(round_to_half(x).numpy(), x.numpy().astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(("granularity", "scales"), [("tensor", 1), ("row", 8), ("group", 16)])
def test_weights_are_trits_times_fp16_scales(granularity: Granularity, scales: int) -> None:
    weight = torch.randn(8, 512)
    trits, scale = ternarize(weight, granularity)
    assert set(trits.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert scale.numel() == scales
    np.testing.assert_array_equal(scale.numpy(), scale.numpy().astype(np.float16))
    means = weight.view(*{"tensor": (1, 1), "row": (8, 1), "group": (8, 2)}[granularity], -1).abs().mean(-1)
    assert torch.allclose(scale[..., 0], means, rtol=1e-3)


def test_activations_are_int8_and_back() -> None:
    x = torch.randn(5, 64) * torch.tensor([1e-7, 0.1, 1, 50, 0])[:, None]
    integers, undo = quantize_activations(x)
    assert integers.abs().max() <= 127
    assert torch.equal(integers, integers.round())
    assert (integers * undo - x).abs().max(1).values.le(x.abs().amax(1) / 253 + 1e-7).all()


@pytest.mark.parametrize("granularity", ["tensor", "row", "group"])
def test_product_and_gradients_are_those_of_the_rounded_operands(granularity: Granularity) -> None:
    """Against torch's own autograd through the usual straight-through expression."""
    layer = BitLinear(512, 24, ternary=True, granularity=granularity)
    x = torch.randn(7, 512, requires_grad=True)
    y = layer(x)
    y.square().sum().backward()
    trits, scale = ternarize(layer.weight.detach(), granularity)
    rounded = (
        (trits.view(24, scale.shape[1], -1) * scale).view(24, 512) if granularity == "group" else trits * scale[:, 0]
    )
    integers, undo = quantize_activations(x.detach())
    again_x, again_w = x.detach().requires_grad_(), layer.weight.detach().requires_grad_()
    straight_x = again_x + (integers * undo - again_x).detach()
    straight_w = again_w + (rounded - again_w).detach()
    again = straight_x @ straight_w.t()
    again.square().sum().backward()
    assert torch.allclose(y, again, rtol=1e-4, atol=1e-4)
    assert torch.allclose(x.grad, again_x.grad, rtol=1e-4, atol=1e-3)  # type: ignore[arg-type]
    assert torch.allclose(layer.weight.grad, again_w.grad, rtol=1e-4, atol=1e-3)  # type: ignore[arg-type]


def test_the_twin_is_an_ordinary_layer() -> None:
    layer = BitLinear(32, 8, ternary=False, granularity="tensor")
    x = torch.randn(3, 32)
    assert torch.equal(layer(x), x @ layer.weight.t())
