"""Paths as users write them."""

from __future__ import annotations

from pathlib import Path

from ternrun.errors import UsageError


def from_home(path: str | Path) -> Path:
    """The path, with `~` and `~user` in front as their home folders. Raises UsageError where there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # the user does not exist, or this process has neither HOME nor a name
        raise UsageError(f"{path} begins with a home folder that is not known") from error
