"""Linear layers with ternary weights and int8 activations, computed exactly as the runtime does.

A weight is `scale * t` with t in {-1, 0, 1} and scale = mean|w|. The scale is rounded to fp16, as files store it, so
export is lossless. Activations are int8 per token (BitNet b1.58, arXiv 2402.17764). Both roundings use the
straight-through estimator. Integers up to 127 and trits are exact in bf16, so the bf16 product equals the integer
product with f32 sums, rounded once at the end.

Factors are multiplied in the same order as in the runtime, because the last bit can matter: at the first position of a
text, attention returns the value vector, a whole number of quantization steps. Without a norm after it, such a value is
often exactly between two int8 values.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from ternrun.train.config import GROUP_SIZE, Granularity

_MIN_SCALE = 2.0**-14  # the smallest normal fp16: a scale must stay above zero


def weight_scale(weight: Tensor, granularity: Granularity) -> Tensor:
    """Scales of a weight (rows, cols) as f32 values that fp16 can represent.

    The shape is (1, 1, 1), (rows, 1, 1) or (rows, cols / GROUP_SIZE, 1), by granularity.
    """
    rows, cols = weight.shape
    if granularity == "tensor":
        scale = weight.abs().mean().view(1, 1, 1)
    else:
        scale = weight.abs().view(rows, -1, GROUP_SIZE if granularity == "group" else cols).mean(2, keepdim=True)
    return round_to_half(scale.clamp(min=_MIN_SCALE))


def round_to_half(x: Tensor) -> Tensor:
    """Round f32 values in fp16's normal range to fp16 precision, ties to even.

    The rounding works on the bits because torch.compile removes a cast to fp16 and back.
    """
    bits = x.view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def ternarize(weight: Tensor, granularity: Granularity) -> tuple[Tensor, Tensor]:
    """Trits (rows, cols) in f32 and the scales of `weight_scale` for an f32 weight (rows, cols)."""
    scale = weight_scale(weight, granularity)
    grouped = weight.view(weight.shape[0], scale.shape[1], -1) if granularity == "group" else weight[:, None]
    return (grouped / scale).round().clamp(-1, 1).view(weight.shape), scale


def quantize_activations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize x (..., K) per token: integers in [-127, 127] in x's dtype, and f32 factors (..., 1) to dequantize."""
    scaling = 127.0 / x.abs().amax(-1, keepdim=True).float().clamp(min=1e-5)
    return (x.float() * scaling).round().to(x.dtype), 1.0 / scaling


class _TernaryProduct(torch.autograd.Function):
    """y = x W^T with quantized x and W; the backward pass treats both roundings as the identity.

    `scale` is (rows or 1, blocks): the columns are divided into equal blocks, each with its own scale and partial sum.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, integers: Tensor, factor: Tensor, trits: Tensor, scale: Tensor, weight: Tensor
    ) -> Tensor:
        del x, weight  # inputs only to receive gradients
        ctx.save_for_backward(integers, factor, trits, scale)
        width = trits.shape[1] // scale.shape[1]
        blocks = zip(integers.split(width, -1), trits.split(width, 1), scale.unbind(1), strict=True)
        total = reduce(torch.add, [(q @ t.t()).float() * s for q, t, s in blocks])
        return (total * factor).to(integers.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        integers, factor, trits, scale = ctx.saved_tensors
        blocks = zip(trits.split(trits.shape[1] // scale.shape[1], 1), scale.unbind(1), strict=True)
        grad_x = torch.cat([(grad.float() * s).to(grad.dtype) @ t for t, s in blocks], -1)
        rescaled = (grad.float() * factor).to(grad.dtype).reshape(-1, grad.shape[-1])
        grad_w = (rescaled.t() @ integers.reshape(-1, integers.shape[-1])).float()
        return grad_x, None, None, None, None, grad_w


class BitLinear(nn.Module):
    """Linear layer without bias whose f32 master weight (rows, cols) is rounded to scale * trits.

    With `ternary=False` the layer uses the master weight without rounding.
    """

    def __init__(self, cols: int, rows: int, *, ternary: bool, granularity: Granularity, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, cols) * (gain / math.sqrt(cols)))
        self.ternary, self.granularity = ternary, granularity

    def forward(self, x: Tensor, quantized: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Map x (..., cols) to (..., rows) in x's dtype; layers can share `quantized` = `quantize_activations(x)`."""
        if not self.ternary:
            return nn.functional.linear(x, self.weight.to(x.dtype))
        integers, factor = quantized or quantize_activations(x)
        trits, scale = ternarize(self.weight, self.granularity)
        product: Tensor = _TernaryProduct.apply(x, integers, factor, trits.to(x.dtype), scale.squeeze(2), self.weight)
        return product
