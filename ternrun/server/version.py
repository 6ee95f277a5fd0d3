"""The version that the server reports."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


@cache
def server_version() -> str:
    """The installed version of ternrun; 0.0.0 in a checkout that is not installed."""
    try:
        return installed("ternrun")
    except PackageNotFoundError:
        return "0.0.0"
