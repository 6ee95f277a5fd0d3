"""Which device runs a model, and why. A backend is imported only when it is picked."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from ternrun.errors import UsageError
from ternrun.runtime.backend.protocol import Backend
from ternrun.runtime.config import Device


def select_backend(device: Device) -> tuple[Backend, str]:
    """The backend for `device` and a sentence for people. Raises UsageError for CUDA, which has no backend yet."""
    if device == "cuda":
        raise UsageError("this version of ternrun runs on the CPU only: leave --device out, or say --device cpu")
    return _backend("cpu"), "asked for" if device == "cpu" else "needs no device but the processor"


def _backend(name: str) -> Backend:
    return cast(Backend, import_module(f"ternrun.runtime.{name}"))
