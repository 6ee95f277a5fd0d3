"""The file that is measured: a user's own, or a synthetic one of a named shape, made for the occasion."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ternrun.bench.synthetic import SHAPES, check_types, write_synthetic
from ternrun.errors import UsageError
from ternrun.loader.default_model import located
from ternrun.loader.user_path import from_home

PEER_ARCHITECTURES = {"bitnet-b1.58": "bitnet"}  # names that other runtimes know a shape by


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be measured: a file or a shape, and for a shape the types of projections and head."""

    model: str
    type: str = "I2_S"
    head: str = "F16"
    architecture: str = ""  # in place of the shape's own
    folder: str = ""  # where synthetic files are kept; empty: they are deleted

    @property
    def is_shape(self) -> bool:
        """Whether a synthetic file is made."""
        return self.model in SHAPES


def wanted(model: str, type_name: str | None, head: str | None, folder: str, usual: str = "") -> Wanted:
    """What the user asked for, the rest as it is usual.

    `usual` is the encoding that a runtime to compare with wants; a shape is then named as such runtimes know it.

    Raises UsageError for types given for a file, which has its own, for names that are no types, and for a folder that
    does not exist.
    """
    if model not in SHAPES:
        if type_name or head or folder:
            raise UsageError(f"--type, --head and --folder are for the shapes {', '.join(SHAPES)}, not for a file")
        return Wanted(model)
    if folder and not Path(folder).is_dir():
        raise UsageError(f"--folder {folder} is not a folder")
    foreign = PEER_ARCHITECTURES.get(SHAPES[model][0].architecture, "") if usual else ""
    projections, head = (type_name or usual or "i2_s").upper(), (head or "f16").upper()
    check_types(projections, head)
    return Wanted(model, projections, head, foreign, folder)


@contextmanager
def provided(wanted: Wanted) -> Iterator[Path]:
    """The file's path. Raises UsageError where it is neither a file nor a shape."""
    if not wanted.is_shape:
        path = from_home(located(wanted.model))
        if not path.exists():
            raise UsageError(f"{wanted.model} is neither a file nor one of the shapes {', '.join(SHAPES)}")
        yield path
        return
    parts = (wanted.model, wanted.architecture, wanted.type.lower(), wanted.head.lower())
    name = "-".join(filter(None, parts)) + ".gguf"
    with tempfile.TemporaryDirectory(prefix="ternrun-bench-", dir=wanted.folder or None) as scratch:
        path = Path(scratch) / name
        kept = Path(wanted.folder) / name
        if wanted.folder and kept.exists():
            yield kept
            return
        write_synthetic(path, wanted.model, wanted.type, head=wanted.head, architecture=wanted.architecture)
        yield path.rename(kept) if wanted.folder else path
