"""Atomic creation of data folders: a folder is written under a hidden name and renamed when it is complete.

Runs map token files into memory, and checkpoints belong to one exact tokenizer, so no file in an existing folder is
overwritten. A new folder can only replace another one as a whole.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ternrun.errors import TernrunError, UsageError

TOKENIZER_FOLDER = "tokenizer"  # in a run's folder: what its checkpoints need of the data
_REQUIRED = ("tokenizer.json", "manifest.json")
_WRITTEN = {*_REQUIRED, "train.bin", "val.bin", "holdout.bin"}


def check_new_folder(folder: Path, *, force: bool = False) -> None:
    """Raise UsageError if `folder` exists and is not empty.

    With `force`, a folder with nothing but the files of `ternrun train data` is accepted.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names and not force:
        raise UsageError(f"{folder} already exists and is not empty; --force replaces it")
    if names and not (_REQUIRED[1] in names and names <= _WRITTEN):
        raise UsageError(f"{folder} holds other files than `ternrun train data` writes; give another --out")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give another --out")


@contextmanager
def atomic_folder(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """A hidden folder to write to, renamed to `folder` at the end of the block and deleted if the block fails.

    Raises UsageError as `check_new_folder` does, TernrunError if the disk is full or not writable.
    """
    check_new_folder(folder, force=force)
    target = folder.resolve()
    hidden, old = (target.with_name(f".{target.name}.{os.getpid()}{end}") for end in ("", ".old"))
    try:
        hidden.mkdir(parents=True, exist_ok=True)
        yield hidden
        if target.exists():
            target.rename(old)  # not every system can rename over a folder
        try:
            hidden.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    except OSError as error:
        reason = error.strerror or error
        raise TernrunError(f"could not write {folder}: {reason}; nothing was written") from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def copy_tokenizer(data: Path, run: Path) -> None:
    """Copy tokenizer and manifest of a data folder to a run's folder; exporting checkpoints needs no other files."""
    target = run / TOKENIZER_FOLDER
    if all((target / name).is_file() and filecmp.cmp(data / name, target / name, shallow=False) for name in _REQUIRED):
        return
    shutil.rmtree(target, ignore_errors=True)  # of a run that ended before its first checkpoint
    with atomic_folder(target) as hidden:
        for name in _REQUIRED:
            shutil.copyfile(data / name, hidden / name)
