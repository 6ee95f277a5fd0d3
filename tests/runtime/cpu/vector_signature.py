"""The signature of the kernels of `vectors.py`, for the callers and for the process that compiles them."""

from __future__ import annotations

from ternrun.runtime.cpu.signatures import ADDRESS, INTEGER, SIGNATURES, Signature


def register() -> None:
    """Add it to the table of signatures."""
    SIGNATURES["tests.runtime.cpu.vectors"] = Signature(
        source=ADDRESS, source_bytes=INTEGER, out=ADDRESS, out_bytes=INTEGER, items=INTEGER
    )
