"""Attention with capped scores: softcap * tanh(score / softcap) (gemma2). Kernels go by the name of their module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ternrun.runtime.cpu.kernels.attention import build_attention


def build(entry: str) -> Callable[..., Any]:
    """Entries: f16, f32, int8."""
    return build_attention(entry, softcap=True)
