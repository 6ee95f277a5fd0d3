"""Rotary angles: cos and sin of every position, in double precision, computed when the first sequence gets there."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.config import RopeConfig
from ternrun.runtime.cpu.memory import aligned

F64 = NDArray[np.float64]


STEP = 512  # positions computed at least, when there are too few


class Tables:
    """`cos` and `sin` of `positions` positions, (positions * dim / 2,) each; zeros as far as nobody got yet.

    `local`: of a sliding layer with a base of its own, which is not scaled.
    """

    def __init__(self, rope: RopeConfig, positions: int, *, local: bool) -> None:
        if local and rope.local_base:
            self._angles, self._magnitude = _plain(rope.dim, rope.local_base), 1.0
        else:
            self._angles, self._magnitude = _scaled(rope), rope.attention_factor
        self._positions, self._ready = positions, 0
        size = 4 * positions * self._angles.size
        self.cos, self.sin = aligned(size).view(np.float32), aligned(size).view(np.float32)

    def reach(self, positions: int) -> None:
        """Have the first `positions` positions ready."""
        if positions <= self._ready:
            return
        first, last = self._ready, min(self._positions, max(positions, 2 * self._ready, STEP))
        theta = np.outer(np.arange(first, last), self._angles)
        part = slice(first * self._angles.size, last * self._angles.size)
        self.cos[part] = (np.cos(theta) * self._magnitude).ravel()
        self.sin[part] = (np.sin(theta) * self._magnitude).ravel()
        self._ready = last


def _plain(dim: int, base: float) -> F64:
    """Radians a position for each pair (arXiv 2104.09864)."""
    return np.asarray(base ** (-np.arange(0, dim, 2) / max(dim, 1)), np.float64)


def _scaled(rope: RopeConfig) -> F64:
    """Divided per pair (llama 3), by one factor (linear), or by a ramp between pairs (YaRN, arXiv 2309.00071)."""
    plain = _plain(rope.dim, rope.base)
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
    """Index of the pair that makes so many full turns within the original context."""
    return rope.dim * math.log(rope.original_context / (turns * 2 * math.pi)) / (2 * math.log(rope.base))
