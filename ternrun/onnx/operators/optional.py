"""Optional values: None, or the value itself (a tensor or a sequence)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.operators.table import Kernel, OpKernelInfo, operator


@operator("Optional")
def optional(info: OpKernelInfo) -> Kernel:
    """What it is given, or nothing."""
    return lambda x=None: x


@operator("OptionalHasElement")
def has_element(info: OpKernelInfo) -> Kernel:
    """Whether there is one."""
    return lambda x=None: np.array(x is not None)


@operator("OptionalGetElement")
def get_element(info: OpKernelInfo) -> Kernel:
    """The value."""

    def kernel(x: Any = None) -> Any:
        if x is None:
            raise LoadError("has nothing to get")
        return x

    return kernel
