"""The checkpoint argument of a command: a file, or the folder of a run."""

from __future__ import annotations

from pathlib import Path

from ternrun.errors import LoadError
from ternrun.loader.user_path import from_home
from ternrun.train.commands.common import say

BEST, LAST = "best.safetensors", "last.safetensors"  # as in loop.checkpoint, whose import takes seconds


def checkpoint_file(given: Path, *, first: str = BEST) -> Path:
    """The checkpoint at a path. From the folder of a run, `first` or else the other checkpoint is used and reported.

    Raises LoadError if there is no checkpoint, or the file is a model.
    """
    path = from_home(given)
    if path.is_dir():
        found = next((path / name for name in (first, BEST, LAST) if (path / name).is_file()), None)
        if found is None:
            from ternrun.loader.unsupported.describe import describe  # imports numpy, which --help does not need

            problem = describe(path) or f"is a folder without a checkpoint ({BEST} or {LAST})"
            raise LoadError(f"{path} {problem}")
        say(f"using {found}")
        return found
    if not path.exists():
        raise LoadError(f"there is no checkpoint {path}")
    if is_model(path):
        raise LoadError(f"{path} is a model file, not a checkpoint; `ternrun convert` writes it in another type")
    return path


def is_run(path: Path) -> bool:
    """Whether `path` is the folder of a run: it has a log and a checkpoint."""
    return path.is_dir() and any((path / name).is_file() for name in (BEST, LAST)) and (path / "log.jsonl").is_file()


def is_model(path: Path) -> bool:
    """Whether a file is a model, by its suffix or first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix in (".gguf", ".onnx") or file.read(4) == b"GGUF"
