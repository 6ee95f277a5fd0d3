"""A data folder comes into being whole: written hidden beside its place, and renamed once all of it is there.

Token files are mapped by the runs that read them, and checkpoints go with the very tokenizer they were trained with:
nothing in a folder is ever written over.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ternrun.errors import TernrunError, UsageError

KEPT = "tokenizer"  # the folder in a run's that holds what its checkpoints need of their data
_NEEDED = ("tokenizer.json", "manifest.json")


def check_free(folder: Path) -> None:
    """Raises UsageError where something is at `folder` already, if only one file in it."""
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds files already, which a run may be reading; give another --out, or delete it")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give another --out")


@contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """A hidden folder to write to, which becomes `folder` at the end of the block, or is removed where that fails.

    Raises UsageError where something is there already, TernrunError where the disk refuses.
    """
    check_free(folder)
    place = folder.resolve()
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        beside.mkdir(parents=True, exist_ok=True)
        yield beside
        if place.exists():
            place.rmdir()  # it is empty; not every system renames over it
        beside.rename(place)
    except OSError as error:
        reason = error.strerror or error
        raise TernrunError(f"could not write {folder}: {reason}; nothing of it is kept, what was there is") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def keep_tokenizer(data: Path, run: Path) -> None:
    """Copy tokenizer and manifest of a data folder into a run's, so that its checkpoints can be exported without it."""
    kept = run / KEPT
    if all((kept / name).is_file() and filecmp.cmp(data / name, kept / name, shallow=False) for name in _NEEDED):
        return
    shutil.rmtree(kept, ignore_errors=True)  # of a run that ended before its first checkpoint
    with made_whole(kept) as beside:
        for name in _NEEDED:
            shutil.copyfile(data / name, beside / name)
