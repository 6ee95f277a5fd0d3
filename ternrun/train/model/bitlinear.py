"""Ternary weights and int8 activations in training, exactly as the runtime computes them.

A weight is `scale * t` with t in {-1, 0, 1} and scale = mean|w| rounded to fp16, the width files store it in, so
that export loses nothing. Activations are int8 per token (BitNet b1.58, arXiv 2402.17764). Gradients pass straight
through both roundings. Integers up to 127 and trits are exact in bf16, so the bf16 product is the integer product
with f32 sums, rounded once at the end.

Factors are multiplied in the runtime's order. At a text's first position attention gives its value back, a whole number
of steps; where no norm follows it often falls just between two int8 values, and then the last bit decides.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn

Granularity = Literal["tensor", "row", "group"]
GROUP = 256  # columns under one scale where granularity is "group": the block of TQ1_0 and TQ2_0
_TINY = 2.0**-14  # the smallest normal fp16: a scale must stay above zero


def weight_scale(weight: Tensor, granularity: Granularity) -> Tensor:
    """fp16-exact scales of a weight (rows, cols), f32: (1, 1, 1), (rows, 1, 1) or (rows, cols / GROUP, 1)."""
    rows, cols = weight.shape
    if granularity == "tensor":
        scale = weight.abs().mean().view(1, 1, 1)
    else:
        scale = weight.abs().view(rows, -1, GROUP if granularity == "group" else cols).mean(2, keepdim=True)
    return round_to_half(scale.clamp(min=_TINY))


def round_to_half(x: Tensor) -> Tensor:
    """f32 values of fp16's normal range rounded to fp16, ties to even.

    On the bits, because torch.compile drops a cast to fp16 and back.
    """
    bits = x.view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def ternarize(weight: Tensor, granularity: Granularity) -> tuple[Tensor, Tensor]:
    """Trits (rows, cols) as f32 and scales as `weight_scale` gives them, for an f32 weight (rows, cols)."""
    scale = weight_scale(weight, granularity)
    grouped = weight.view(weight.shape[0], scale.shape[1], -1) if granularity == "group" else weight[:, None]
    return (grouped / scale).round().clamp(-1, 1).view(weight.shape), scale


def quantize_activations(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (..., K) as integers in [-127, 127] in x's dtype, and the f32 factors (..., 1) that undo the scaling."""
    scaling = 127.0 / x.abs().amax(-1, keepdim=True).float().clamp(min=1e-5)
    return (x.float() * scaling).round().to(x.dtype), 1.0 / scaling


class _TernaryProduct(torch.autograd.Function):
    """y = x W^T through the roundings; the backward pass treats both roundings as the identity.

    scale (rows or 1, blocks): each of so many equal blocks of columns has its own, and is summed by itself.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, integers: Tensor, undo: Tensor, trits: Tensor, scale: Tensor, weight: Tensor
    ) -> Tensor:
        del x, weight  # only their gradients matter
        ctx.save_for_backward(integers, undo, trits, scale)
        width = trits.shape[1] // scale.shape[1]
        blocks = zip(integers.split(width, -1), trits.split(width, 1), scale.unbind(1), strict=True)
        total = reduce(torch.add, [(q @ t.t()).float() * s for q, t, s in blocks])
        return (total * undo).to(integers.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        integers, undo, trits, scale = ctx.saved_tensors
        blocks = zip(trits.split(trits.shape[1] // scale.shape[1], 1), scale.unbind(1), strict=True)
        grad_x = torch.cat([(grad.float() * s).to(grad.dtype) @ t for t, s in blocks], -1)
        rescaled = (grad.float() * undo).to(grad.dtype).reshape(-1, grad.shape[-1])
        grad_w = (rescaled.t() @ integers.reshape(-1, integers.shape[-1])).float()
        return grad_x, None, None, None, None, grad_w


class BitLinear(nn.Module):
    """Linear layer without bias whose f32 master weight (rows, cols) is used as scale * trits.

    `ternary=False` gives the full-precision twin: the same layer without the roundings.
    """

    def __init__(self, cols: int, rows: int, *, ternary: bool, granularity: Granularity, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, cols) * (gain / math.sqrt(cols)))
        self.ternary, self.granularity = ternary, granularity

    def forward(self, x: Tensor, quantized: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """x (..., cols) -> (..., rows) in x's dtype; `quantized` is `quantize_activations(x)` where layers share it."""
        if not self.ternary:
            return nn.functional.linear(x, self.weight.to(x.dtype))
        integers, undo = quantized or quantize_activations(x)
        trits, scale = ternarize(self.weight, self.granularity)
        product: Tensor = _TernaryProduct.apply(x, integers, undo, trits.to(x.dtype), scale.squeeze(2), self.weight)
        return product
