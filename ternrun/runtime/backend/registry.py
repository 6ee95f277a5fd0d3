"""Which backend runs a model, and why. A backend is imported only when it is selected."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from ternrun.errors import UsageError
from ternrun.runtime.backend.protocol import Backend
from ternrun.runtime.config import Device


def _cpu() -> Backend:
    return cast(Backend, import_module("ternrun.runtime.cpu"))


_BACKENDS: dict[str, Callable[[], Backend]] = {"cpu": _cpu}


def register_backend(device: str, backend: Callable[[], Backend]) -> None:
    """Make `backend` the one of a device ("cpu"); it is called when a model of that device loads."""
    _BACKENDS[device] = backend


def select_backend(device: Device) -> tuple[Backend, str]:
    """The backend for `device` and the reason, for people. Raises UsageError for CUDA, which has no backend yet."""
    if device == "cuda":
        raise UsageError("this version of ternrun runs on the CPU only: leave --device out, or say --device cpu")
    return _BACKENDS["cpu"](), "asked for" if device == "cpu" else "needs no device but the processor"
