"""The checkpoint that a command works on: a file, or a run's folder."""

from __future__ import annotations

from pathlib import Path

from ternrun.errors import LoadError
from ternrun.loader.user_path import from_home
from ternrun.train.commands.progress_line import say

BEST, LAST = "best.safetensors", "last.safetensors"


def checkpoint_file(given: Path, *, first: str = BEST) -> Path:
    """The file given; of a run's folder the checkpoint `first`, or the other one, which is said.

    Raises LoadError for anything that is no checkpoint by its name and kind.
    """
    path = from_home(given)
    if path.is_dir():
        found = next((path / name for name in (first, BEST, LAST) if (path / name).is_file()), None)
        if found is None:
            from ternrun.loader.unsupported.describe import describe  # it imports numpy, which --help does without

            says = describe(path) or f"is a folder without a checkpoint ({BEST} or {LAST})"
            raise LoadError(f"{path} {says}")
        say(f"{found} is taken")
        return found
    if not path.exists():
        raise LoadError(f"there is no checkpoint {path}")
    if is_model(path):
        raise LoadError(f"{path} is a model file, not a checkpoint; `ternrun convert` writes it in another type")
    return path


def is_run(path: Path) -> bool:
    """Whether it is a folder with a checkpoint and no model beside it."""
    return path.is_dir() and any((path / name).is_file() for name in (BEST, LAST)) and (path / "log.jsonl").is_file()


def is_model(path: Path) -> bool:
    """Whether a file is a model by its name or first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix in (".gguf", ".onnx") or file.read(4) == b"GGUF"
