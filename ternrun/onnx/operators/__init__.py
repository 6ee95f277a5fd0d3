"""The operators' kernels. Importing this package fills the table (see table.py)."""

from ternrun.onnx.operators import (
    activations,
    attention,
    cached,
    elementwise,
    gathering,
    matrices,
    norms,
    optional,
    quantized,
    reducing,
    rotary,
    shapes,
    windows,
)

__all__ = [
    "activations", "attention", "cached", "elementwise", "gathering", "matrices", "norms", "optional", "quantized",
    "reducing", "rotary", "shapes", "windows",
]  # fmt: skip
