"""Open a .onnx file by path, and say what a file is that is no ONNX graph."""

from __future__ import annotations

import stat
from pathlib import Path

from ternrun.errors import LoadError
from ternrun.loader.unsupported.files import HEAD, foreign_file
from ternrun.onnx.format.graph import OnnxModel
from ternrun.onnx.format.reader import open_onnx


def open_file(path: str | Path) -> OnnxModel:
    """The checked graph. Raises LoadError, which names the kind of a file of another format."""
    path = Path(path)
    head = b""
    try:
        if stat.S_ISREG(path.stat().st_mode):  # opening a pipe could wait forever
            with path.open("rb") as f:
                head = f.read(HEAD)
    except (OSError, ValueError):
        return open_onnx(path)  # it says what is wrong with the path
    if head.startswith(b"GGUF"):
        raise LoadError(f"{path} is a GGUF file, not an ONNX file; name it .gguf")
    if says := foreign_file(path, head):
        raise LoadError(f"{path} {says}")
    return open_onnx(path)
