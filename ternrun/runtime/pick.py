"""Which device runs a model, and why. A backend is imported only when it is picked."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import cast

from ternrun.errors import MissingExtra, UsageError
from ternrun.runtime.backend import Backend
from ternrun.runtime.config import Device


def pick(device: Device) -> tuple[Backend, str]:
    """The backend for `device` and a sentence for people. Raises UsageError, which says what CUDA lacks here."""
    if device == "cuda":
        _require_cuda()
        return _backend("cuda"), "asked for"
    return _backend("cpu"), "asked for" if device == "cpu" else "needs no device but the processor"


def _backend(name: str) -> Backend:
    return cast(Backend, import_module(f"ternrun.runtime.{name}"))


def _require_cuda() -> None:
    if find_spec("ternrun.runtime.cuda") is None:
        raise UsageError("this version of ternrun runs on the CPU only: leave --device out, or say --device cpu")
    if find_spec("numba_cuda") is None:
        raise MissingExtra("--device cuda", "cuda")
