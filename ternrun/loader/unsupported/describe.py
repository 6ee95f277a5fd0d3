"""The sentence for a path at which no model could be opened."""

from __future__ import annotations

import stat
from pathlib import Path

from ternrun.loader.unsupported.files import HEAD, foreign_file
from ternrun.loader.unsupported.folders import foreign_folder
from ternrun.loader.unsupported.gguf import foreign_gguf
from ternrun.loader.unsupported.names import unfinished


def describe(path: Path) -> str | None:
    """What is at `path`, where that is known and no model that ternrun runs: the rest of a sentence behind the path.

    None for anything else, such as a damaged model. Reads the beginning of a regular file, or a folder's names.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return foreign_folder(path)
        if not stat.S_ISREG(mode):
            return None
        with path.open("rb") as file:
            head = file.read(HEAD)
    except (OSError, ValueError):
        return None
    if head.startswith(b"GGUF"):
        return foreign_gguf(path) or unfinished(path)
    if not head or head.startswith((b"version https://git-lfs", b"<")):
        return foreign_file(path, head)
    return unfinished(path) or foreign_file(path, head)
