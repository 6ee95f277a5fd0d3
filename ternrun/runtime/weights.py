"""Checked weights, as a loader hands them to a backend: names, shapes, and bytes still in the file's encoding.

Tensor names are GGUF's (`token_embd.weight`, `blk.0.attn_q.weight`, ...), whatever file they came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: `data` holds exactly the bytes that `type` and `shape` call for (checked by the loader).

    shape is (rows, columns) for a matrix, columns = the input dimension, contiguous in memory; (n,) for a vector.
    `scale` multiplies every decoded element (`bitnet`'s `.scale` tensors, Hugging Face's `weight_scale`).
    """

    name: str
    type: str  # a key of `ternrun.runtime.encodings.ENCODINGS`
    shape: tuple[int, ...]
    data: NDArray[np.uint8]
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Weights:
    """A whole model: its configuration and its tensors by GGUF name."""

    config: ModelConfig
    tensors: Mapping[str, Tensor]

    def digest(self) -> bytes:
        """32 bytes that stand for all of it (BLAKE2b); every weight is read, which takes half a second a gigabyte."""
        state = blake2b(repr(self.config).encode(), digest_size=32)
        for name, tensor in sorted(self.tensors.items()):
            state.update(repr((name, tensor.type, tensor.shape, tensor.scale)).encode())
            state.update(np.ascontiguousarray(tensor.data).data)
        return state.digest()
