"""Convolution and pooling: sums (or extremes) over shifted views of a padded tensor, one view for each kernel element.

x is (N, C, *spatial) throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from typing import Any

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.format.limits import check_tensor_size, check_work
from ternrun.onnx.operators.table import Array, Kernel, OpKernelInfo, operator, same_type, upcast_half

MAX_TAPS = 1 << 16  # elements of a kernel


@dataclass(frozen=True, slots=True)
class Window:
    """The positions of a kernel over one shape of input, per spatial dimension."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]  # padding
    after: tuple[int, ...]
    out: tuple[int, ...]
    overhang: tuple[int, ...]  # elements that ceil_mode adds after the padding

    def padded(self, x: Array, value: Any) -> Array:
        """x with its padding and overhang."""
        pads = [(b, a + o) for b, a, o in zip(self.before, self.after, self.overhang, strict=True)]
        if not any(map(any, pads)):
            return x
        check_tensor_size([*x.shape[:2], *(n + sum(p) for n, p in zip(x.shape[2:], pads, strict=True))], x.itemsize)
        return np.pad(x, [(0, 0), (0, 0), *pads], constant_values=value)

    def taps(self, padded: Array) -> list[tuple[tuple[int, ...], Array]]:
        """For each kernel element: its position, and the view of the inputs that it multiplies at all output
        positions.
        """
        out = []
        for place in product(*map(range, self.size)):
            index = tuple(
                slice(p * d, p * d + (n - 1) * s + 1, s)
                for p, d, s, n in zip(place, self.dilations, self.strides, self.out, strict=True)
            )
            out.append((place, padded[(slice(None), slice(None), *index)]))
        return out


def window(info: OpKernelInfo, x: Array, size: Sequence[int]) -> Window:
    """The Window of a kernel of `size` over x, by the node's pads, strides, dilations, auto_pad and ceil_mode."""
    dims = x.ndim - 2
    given = {name: info.integers(name) or (1,) * dims for name in ("strides", "dilations")}
    strides, dilations = given["strides"], given["dilations"]
    pads = info.integers("pads") or (0,) * (2 * dims)
    if dims < 1 or {len(size), len(strides), len(dilations)} != {dims} or len(pads) != 2 * dims:
        raise LoadError(f"a kernel of {list(size)} with its pads and strides does not fit {list(x.shape)}")
    if min(*size, *strides, *dilations) < 1 or min(pads) < 0 or prod(size) > MAX_TAPS or max(*size, *pads) > 1 << 31:
        raise LoadError(f"a kernel of {list(size)}, strides {list(strides)}, pads {list(pads)} is not supported")
    auto, up = info.text("auto_pad", "NOTSET"), info.integer("ceil_mode")
    before, after, outs, overhang = [], [], [], []
    for i, (n, k, s, d) in enumerate(zip(x.shape[2:], size, strides, dilations, strict=True)):
        reach = (k - 1) * d + 1
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            out = ceil(n / s)
            total = max((out - 1) * s + reach - n, 0)
            small, large = total // 2, total - total // 2
            b, a = (small, large) if auto == "SAME_UPPER" else (large, small)
        else:
            b, a = (0, 0) if auto == "VALID" else (pads[i], pads[dims + i])
            steps = (n + b + a - reach) / s
            out = (ceil(steps) if up else int(steps // 1)) + 1
            if up and (out - 1) * s >= n + b:  # no window starts in the padding at the end
                out -= 1
        if out < 1:
            raise LoadError(f"a kernel of {list(size)} is larger than its padded input {list(x.shape)}")
        before.append(b)
        after.append(a)
        outs.append(out)
        overhang.append(max((out - 1) * s + reach - n - b - a, 0))
    check_tensor_size([*x.shape[:2], *outs], x.itemsize)
    check_work(x.shape[0] * x.shape[1] * prod(outs) * prod(size))
    return Window(tuple(size), strides, dilations, tuple(before), tuple(after), tuple(outs), tuple(overhang))


@operator("Conv", fresh=True)
def conv(info: OpKernelInfo) -> Kernel:
    """Conv with weights (M, C / group, *kernel).

    Groups are matrix products; depthwise convolution is a multiplication.
    """
    group = info.integer("group", 1)

    def kernel(x: Array, w: Array, bias: Array | None = None) -> Array:
        same_type(x, w)
        if x.ndim < 3 or w.ndim != x.ndim or group < 1 or w.shape[0] % group or x.shape[1] != w.shape[1] * group:
            raise LoadError(f"weights of shape {list(w.shape)} in {group} groups do not fit {list(x.shape)}")
        stated = info.integers("kernel_shape")
        if stated is not None and stated != w.shape[2:]:
            raise LoadError(f"states a kernel of {list(stated)}, but its weights are {list(w.shape)}")
        at = window(info, x, w.shape[2:])
        outputs, inputs = w.shape[:2]
        check_work(x.shape[0] * outputs * inputs * prod(at.out) * prod(at.size))
        check_tensor_size((x.shape[0], outputs, *at.out))
        wide = upcast_half(w).reshape(group, outputs // group, inputs, -1)
        total = np.zeros((x.shape[0], group, outputs // group, prod(at.out)), wide.dtype)
        for i, (_, view) in enumerate(at.taps(at.padded(upcast_half(x), 0))):
            columns = view.reshape(x.shape[0], group, inputs, -1)
            tap = wide[..., i]
            total += tap * columns if inputs == 1 else np.matmul(tap, columns)
        out = total.reshape(x.shape[0], outputs, *at.out)
        if bias is not None:
            if bias.shape != (outputs,):
                raise LoadError(f"a bias of shape {list(bias.shape)} does not fit {outputs} channels")
            out += upcast_half(bias).reshape(-1, *(1,) * (x.ndim - 2))
        return out.astype(x.dtype, copy=False)

    return kernel


def _pool(info: OpKernelInfo, x: Array) -> Window:
    if x.ndim < 3:
        raise LoadError(f"takes three dimensions or more, not {list(x.shape)}")
    return window(info, x, info.integers("kernel_shape") or ())


def _fold(taps: list[tuple[tuple[int, ...], Array]], function: Callable[..., Any]) -> Array:
    total = taps[0][1].copy()
    for _, view in taps[1:]:
        function(total, view, out=total)
    return total


@operator("MaxPool", fresh=True)
def max_pool(info: OpKernelInfo) -> Kernel | None:
    """Maxima. The reference runs nodes that also return indices."""
    if len(info.node.outputs) > 1:
        return None

    def kernel(x: Array) -> Array:
        lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        at = _pool(info, x)
        return _fold(at.taps(at.padded(x, lowest)), np.maximum)

    return kernel


@operator("AveragePool", fresh=True)
def average_pool(info: OpKernelInfo) -> Kernel:
    """Means, with or without the padding; elements that ceil_mode adds never count."""
    with_pads = info.integer("count_include_pad")

    def kernel(x: Array) -> Array:
        at = _pool(info, x)
        total = _fold(at.taps(at.padded(upcast_half(x), 0)), np.add)
        ones = np.ones((1, 1, *x.shape[2:]), total.dtype)
        if with_pads:
            ones = np.pad(ones, [(0, 0), (0, 0), *zip(at.before, at.after, strict=True)], constant_values=1)
            ones = np.pad(ones, [(0, 0), (0, 0), *((0, o) for o in at.overhang)])
        else:
            ones = at.padded(ones, 0)
        total /= np.maximum(_fold(at.taps(ones), np.add), 1)
        return total.astype(x.dtype, copy=False)

    return kernel


@operator("LpPool", since=2, fresh=True)
def lp_pool(info: OpKernelInfo) -> Kernel:
    """(sum |x|^p)^(1/p)."""
    p = info.integer("p", 2)
    if not 1 <= p <= 1 << 20:
        raise LoadError(f"has p={p}, which is not supported")

    def kernel(x: Array) -> Array:
        at = _pool(info, x)
        total = _fold(at.taps(at.padded(np.abs(upcast_half(x)) ** p, 0)), np.add)
        return (total ** (1 / p)).astype(x.dtype, copy=False)

    return kernel
