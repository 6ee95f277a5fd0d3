"""What is kept between processes, in the user's cache folder: files that are checked before anything is made of them.

A file is a header line (magic, SHA-256 of the rest) and its content. One that is damaged, cut short or not ours counts
as absent. Each is put in place whole, so processes that start at once do not disturb each other.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from importlib.util import find_spec
from pathlib import Path

from ternrun.errors import KernelError

MAGIC = b"ternrun-cache-2"


def cache_root() -> Path:
    """TERNRUN_CACHE, else the user's cache folder."""
    if named := os.environ.get("TERNRUN_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "ternrun"
    except RuntimeError:  # neither HOME nor a name, as in some containers: nothing is kept then
        return Path(os.devnull) / "ternrun"


def usable(folder: Path) -> bool:
    """Whether the folder exists or can be made, is ours and nobody else may write to it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.stat()
    except OSError:
        return False
    if not hasattr(os, "getuid"):
        return os.access(folder, os.W_OK)
    return info.st_uid == os.getuid() and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def write(path: Path, content: bytes) -> None:
    """Put a file in place whole, or not at all."""
    from tempfile import mkstemp  # most processes only read

    handle, temporary = mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "wb") as file:
        file.write(MAGIC + b" " + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    Path(temporary).replace(path)


def read(path: Path) -> bytes | None:
    """The content of a file, or None where it is absent or damaged."""
    try:
        head, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return content if head == MAGIC + b" " + hashlib.sha256(content).hexdigest().encode() else None


def installed(package: str) -> str:
    """What changes when a package is upgraded; reading its metadata would take longer than loading all kernels."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise KernelError(f"{package} is not installed: pip install --upgrade ternrun")
    info = Path(spec.origin).stat()
    return f"{spec.origin} {info.st_size} {info.st_mtime_ns}"
