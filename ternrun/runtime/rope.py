"""Rotary angles: cos and sin of every position, computed in double precision when a sequence first gets there."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.config import RopeConfig

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
STEP = 512  # positions that are computed at once, at least


def _zeros(size: int) -> F32:
    return np.zeros(size, np.float32)


class RopeTable:
    """`cos` and `sin` of `positions` positions, float32, (positions * dim / 2,) each; zeros until `reach`.

    `local` selects the base and the factor of sliding layers. `allocate` makes a float32 array of zeros.
    """

    def __init__(
        self, rope: RopeConfig, positions: int, *, local: bool, allocate: Callable[[int], F32] = _zeros
    ) -> None:
        if local and rope.local_base:
            self._angles = inverse_frequencies(rope.dim, rope.local_base) / rope.local_factor
            self._magnitude = 1.0
        else:
            self._angles, self._magnitude = _scaled(rope), rope.attention_factor
        self._positions, self._ready = positions, 0
        self.cos, self.sin = (allocate(positions * self._angles.size) for _ in range(2))

    def reach(self, positions: int) -> None:
        """Compute the first `positions` positions if they are not there yet."""
        if positions <= self._ready:
            return
        first, last = self._ready, min(self._positions, max(positions, 2 * self._ready, STEP))
        theta = np.outer(np.arange(first, last), self._angles)
        part = slice(first * self._angles.size, last * self._angles.size)
        self.cos[part] = (np.cos(theta) * self._magnitude).ravel()
        self.sin[part] = (np.sin(theta) * self._magnitude).ravel()
        self._ready = last


def inverse_frequencies(dim: int, base: float) -> F64:
    """Radians per position of each pair, (dim / 2,) (arXiv 2104.09864)."""
    return np.asarray(base ** (-np.arange(0, dim, 2) / max(dim, 1)), np.float64)


def _scaled(rope: RopeConfig) -> F64:
    """Frequencies divided per pair (llama 3), by one factor (linear), or by a ramp (YaRN, arXiv 2309.00071)."""
    plain = inverse_frequencies(rope.dim, rope.base)
    if rope.frequency_factors:
        plain = plain / np.asarray(rope.frequency_factors, np.float64)
    if rope.scaling == "none":
        return plain
    if rope.scaling == "linear":
        return plain / rope.factor
    low = max(0.0, math.floor(_pair_with_turns(rope, rope.beta_fast)))
    high = min(rope.dim - 1.0, math.ceil(_pair_with_turns(rope, rope.beta_slow)))
    ramp = np.clip((np.arange(rope.dim // 2) - low) / max(0.001, high - low), 0, 1)
    return np.asarray(plain * (1 - ramp) + plain / rope.factor * ramp, np.float64)


def _pair_with_turns(rope: RopeConfig, turns: float) -> float:
    """Index of the pair that makes `turns` full turns within the original context."""
    return rope.dim * math.log(rope.original_context / (turns * 2 * math.pi)) / (2 * math.log(rope.base))
