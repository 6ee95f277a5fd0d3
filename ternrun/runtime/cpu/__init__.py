"""The CPU backend: kernels written in Python, compiled once by numba and LLVM, run by a pool of threads."""

from __future__ import annotations

from ternrun.runtime.backend.protocol import Idle, ProgressCallback
from ternrun.runtime.config import EngineConfig
from ternrun.runtime.cpu.model import CpuModel
from ternrun.runtime.weights import Weights

name = "cpu"


def load(
    weights: Weights, engine: EngineConfig, progress: ProgressCallback | None = None, idle: Idle | None = None
) -> CpuModel:
    """See `backend.Backend.load`."""
    return CpuModel(weights, engine, progress=progress, idle=idle)
