"""Operators on optional values: None, or a tensor or a sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from ternrun.errors import LoadError
from ternrun.onnx.operators.table import Kernel, OpKernelInfo, operator


@operator("Optional")
def optional(info: OpKernelInfo) -> Kernel:
    """Optional: the input, or None."""
    return lambda x=None: x


@operator("OptionalHasElement")
def has_element(info: OpKernelInfo) -> Kernel:
    """Whether the optional value is present."""
    return lambda x=None: np.array(x is not None)


@operator("OptionalGetElement")
def get_element(info: OpKernelInfo) -> Kernel:
    """The value. Raises LoadError if it is absent."""

    def kernel(x: Any = None) -> Any:
        if x is None:
            raise LoadError("gets the element of an empty optional value")
        return x

    return kernel
