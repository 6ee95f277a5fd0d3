"""The lines that were typed, kept in a file across conversations. Only its owner can read that file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ternrun.errors import UsageError
from ternrun.loader.user_path import from_home

try:
    import readline
except ImportError:  # Windows: the terminal itself edits lines
    readline = None  # type: ignore[assignment]

LINES = 1000  # that are kept


class History:
    """`named` is the user's own file, which must work; "" keeps nothing. None is TERNRUN_HISTORY, else the default.

    The default is `ternrun/chat_history` in XDG_STATE_HOME or ~/.local/state. A default file that cannot be read or
    written is left out silently.
    """

    def __init__(self, named: str | None = None) -> None:
        named = os.environ.get("TERNRUN_HISTORY") if named is None else named
        self.required = bool(named)
        self.file = (from_home(named) if named else None) if named is not None else _default()
        self._before = 0  # lines that the file held

    def read(self) -> None:
        """Load the lines of earlier conversations. Raises UsageError."""
        if not (readline and self.file and self.file.exists()):
            return
        try:
            readline.read_history_file(self.file)
        except OSError as error:  # it does not say of which file
            if self.required:
                raise UsageError(f"the history in {self.file} cannot be read: {error.strerror}") from error
            self.file = None
            return
        self._before = readline.get_current_history_length()

    def write(self) -> None:
        """Add this conversation's lines behind what other conversations wrote meanwhile. Raises UsageError."""
        if not (readline and self.file):
            return
        readline.set_history_length(LINES)
        try:
            if not self.required:
                self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.file, os.O_WRONLY | os.O_CREAT, 0o600))
            if hasattr(readline, "append_history_file"):
                readline.append_history_file(max(0, readline.get_current_history_length() - self._before), self.file)
            else:  # libedit
                readline.write_history_file(self.file)
        except OSError as error:
            if self.required:
                raise UsageError(f"the history cannot be written to {self.file}: {error.strerror}") from error
            return
        with suppress(OSError):
            self.file.chmod(0o600)  # conversations are private


def keep(on: bool) -> None:
    """Whether lines that are typed from now on go into the history."""
    if readline:
        readline.set_auto_history(on)


def _default() -> Path | None:
    try:
        return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "ternrun" / "chat_history"
    except RuntimeError:  # no home
        return None
