from __future__ import annotations

import os
from pathlib import Path

import pytest

from ternrun.errors import UsageError
from ternrun.files import replacing


def test_a_file_takes_its_place_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def half_write(path: Path) -> None:
    with replacing(path) as beside:
        beside.write_text("half")
        raise OSError(28, "No space left on device")


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(OSError, match="No space"):
        half_write(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_put_out_of_the_way(tmp_path: Path) -> None:
    path = tmp_path / "a"
    os.mkfifo(path)
    with pytest.raises(UsageError, match="is no regular file"), replacing(path):
        pass
    assert path.is_fifo()


@pytest.mark.parametrize("name", [".", "none/a"])
def test_a_folder_is_no_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder or lies in none that exists"), replacing(tmp_path / name):
        pass
