"""A data folder comes into being whole: written hidden beside its place, and renamed once all of it is there.

Token files are mapped by the runs that read them, and checkpoints go with the very tokenizer they were trained with:
nothing in a folder is ever written over. A new folder may take the place of another one as a whole.
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
_WRITTEN = {*_NEEDED, "train.bin", "val.bin", "holdout.bin"}


def check_free(folder: Path, *, force: bool = False) -> None:
    """Raises UsageError where something is at `folder` already, if only one file in it.

    `force` allows for a folder that holds what `ternrun train data` writes and nothing else.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names and not force:
        raise UsageError(f"{folder} is there already and holds files; --force writes over it")
    if names and not (_NEEDED[1] in names and names <= _WRITTEN):
        raise UsageError(f"{folder} holds other files than `ternrun train data` writes; give another --out")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give another --out")


@contextmanager
def made_whole(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """A hidden folder to write to, which becomes `folder` at the end of the block, or is removed where that fails.

    Raises UsageError as `check_free`, TernrunError where the disk refuses.
    """
    check_free(folder, force=force)
    place = folder.resolve()
    beside, old = (place.with_name(f".{place.name}.{os.getpid()}{end}") for end in ("", ".old"))
    try:
        beside.mkdir(parents=True, exist_ok=True)
        yield beside
        if place.exists():
            place.rename(old)  # not every system renames over a folder
        try:
            beside.rename(place)
        except OSError:
            if old.exists():
                old.rename(place)
            raise
    except OSError as error:
        reason = error.strerror or error
        raise TernrunError(f"could not write {folder}: {reason}; nothing of it is kept, what was there is") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def keep_tokenizer(data: Path, run: Path) -> None:
    """Copy tokenizer and manifest of a data folder into a run's, so that its checkpoints can be exported without it."""
    kept = run / KEPT
    if all((kept / name).is_file() and filecmp.cmp(data / name, kept / name, shallow=False) for name in _NEEDED):
        return
    shutil.rmtree(kept, ignore_errors=True)  # of a run that ended before its first checkpoint
    with made_whole(kept) as beside:
        for name in _NEEDED:
            shutil.copyfile(data / name, beside / name)
