"""Limit numpy's BLAS to one thread while the engine's threads run a graph.

BLAS threads spin while they wait, on the cores that the engine's threads need. Only small products, of two values that
both change, are left to BLAS.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

_turn = threading.Lock()
_runs: list[int] = []  # the number of BLAS threads before each active run


@cache
def _library() -> Any:
    """The OpenBLAS functions of numpy's wheels, or None if numpy uses another BLAS."""
    home = Path(np.__file__).parent
    for path in (*home.with_name("numpy.libs").glob("*openblas*"), *home.joinpath(".dylibs").glob("*openblas*")):
        try:
            library = ctypes.CDLL(str(path))
            set_threads, get_threads = (getattr(library, f"scipy_openblas_{w}_num_threads64_") for w in ("set", "get"))
        except (OSError, AttributeError):
            continue
        return set_threads, get_threads
    return None


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the context, BLAS has one thread. The last run to end restores the previous number."""
    found = _library()
    if found is None:
        yield
        return
    set_threads, get_threads = found
    with _turn:
        _runs.append(_runs[0] if _runs else get_threads())
        set_threads(1)
    try:
        yield
    finally:
        with _turn:
            before = _runs.pop()
            if not _runs:
                set_threads(before)
