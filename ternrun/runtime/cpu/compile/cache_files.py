"""What is kept between processes, in the user's cache folder: files that are checked before anything is made of them.

A file is a header line (magic, SHA-256 of the rest) and its content. One that is damaged, cut short or not ours counts
as absent. Each is put in place whole, so processes that start at once do not disturb each other.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from ternrun.errors import KernelError

MAGIC = b"ternrun-cache-2"


def cache_root() -> Path:
    """TERNRUN_CACHE, else the user's cache folder; where there is no such user, a path that cannot be made."""
    try:
        return _named_root().expanduser()
    except RuntimeError:  # no home: the user of a container that its passwd does not list
        return Path(os.devnull) / "ternrun"


def _named_root() -> Path:
    if named := os.environ.get("TERNRUN_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base) / "ternrun"


def is_usable(folder: Path) -> bool:
    """Whether the folder exists or can be made, is ours and nobody else may write to it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.stat()
    except OSError:
        return False
    if not hasattr(os, "getuid"):
        return os.access(folder, os.W_OK)
    return info.st_uid == os.getuid() and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def is_writable(folder: Path) -> bool:
    """Whether files can be added to a usable folder; one that came with a read-only image can be read, no more."""
    return os.access(folder, os.W_OK)


def write(path: Path, content: bytes) -> None:
    """Put a file in place whole, or not at all."""
    from tempfile import mkstemp  # most processes only read

    handle, temporary = mkstemp(dir=path.parent, prefix=_unfinished(os.getpid()))
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(MAGIC + b" " + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        Path(temporary).replace(path)
    except BaseException:  # a full disk must not fill with what did not fit
        Path(temporary).unlink(missing_ok=True)
        raise


def _unfinished(process: int) -> str:
    """How names of files begin that a process has not written whole."""
    return f".{process}-"


def remove_unfinished(folder: Path, process: int) -> None:
    """Remove what a process that was ended had written in part."""
    for path in folder.glob(f"{_unfinished(process)}*"):
        path.unlink(missing_ok=True)


def try_write(path: Path, content: bytes) -> None:
    """`write` what can be found out again, as it will be where there is no place for it."""
    with suppress(OSError):
        write(path, content)


def read(path: Path) -> bytes | None:
    """The content of a file, or None where it is absent or damaged."""
    try:
        head, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return content if head == MAGIC + b" " + hashlib.sha256(content).hexdigest().encode() else None


def package_stamp(package: str) -> str:
    """What changes when a package is upgraded; reading its metadata would take longer than loading all kernels."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise KernelError(f"{package} is not installed: pip install --upgrade ternrun")
    info = Path(spec.origin).stat()
    return f"{spec.origin} {info.st_size} {int(info.st_mtime)}"  # layers of a container's image keep whole seconds
