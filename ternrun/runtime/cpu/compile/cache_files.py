"""Files in the user's cache folder that are verified before they are used.

A file is a header line (magic and the SHA-256 of the content) followed by the content. A damaged, truncated or foreign
file counts as absent. Files are replaced atomically, so processes that start at the same time do not disturb each
other.
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
    """The cache folder: TERNRUN_CACHE, or the user's cache folder.

    Returns a path that cannot be created if the process's user has no home directory.
    """
    try:
        return _named_root().expanduser()
    except RuntimeError:  # no home directory: a container's user that /etc/passwd does not list
        return Path(os.devnull) / "ternrun"


def _named_root() -> Path:
    """The cache folder before `~` is expanded."""
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
    """Whether the folder exists or can be created, belongs to this user, and no other user can write to it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.stat()
    except OSError:
        return False
    if not hasattr(os, "getuid"):
        return os.access(folder, os.W_OK)
    return info.st_uid == os.getuid() and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def is_writable(folder: Path) -> bool:
    """Whether files can be added to a usable folder. A folder in a read-only image can only be read."""
    return os.access(folder, os.W_OK)


def write(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    from tempfile import mkstemp  # imported here because most processes only read

    handle, temporary = mkstemp(dir=path.parent, prefix=_unfinished(os.getpid()))
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(MAGIC + b" " + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        Path(temporary).replace(path)
    except BaseException:  # a partial file must not fill a full disk further
        Path(temporary).unlink(missing_ok=True)
        raise


def _unfinished(process: int) -> str:
    """The name prefix of a process's unfinished files."""
    return f".{process}-"


def remove_unfinished(folder: Path, process: int) -> None:
    """Remove the unfinished files of a process that was killed."""
    for path in folder.glob(f"{_unfinished(process)}*"):
        path.unlink(missing_ok=True)


def try_write(path: Path, content: bytes) -> None:
    """Call `write`, and ignore errors: the content can be computed again."""
    with suppress(OSError):
        write(path, content)


def read(path: Path) -> bytes | None:
    """The content of a file, or None if it is absent or damaged."""
    try:
        head, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return content if head == MAGIC + b" " + hashlib.sha256(content).hexdigest().encode() else None


def package_stamp(package: str) -> str:
    """A string that changes when a package is upgraded.

    Uses the package's file size and time, because reading its metadata takes longer than loading all kernels. Raises
    KernelError if the package is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise KernelError(f"{package} is not installed: pip install --upgrade ternrun")
    info = Path(spec.origin).stat()
    return f"{spec.origin} {info.st_size} {int(info.st_mtime)}"  # container images store times in whole seconds
