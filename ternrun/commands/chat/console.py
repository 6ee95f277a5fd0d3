"""Where the user types and reads: a terminal with line editing, or a pipe that gets the answers alone."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from ternrun.commands.inputs import typed
from ternrun.commands.terminal import DIM, GREEN, coloured, paint, safe
from ternrun.errors import UsageError
from ternrun.loader.home import from_home

try:
    import readline
except ImportError:  # Windows: the terminal itself edits lines
    readline = None  # type: ignore[assignment]

HISTORY = 1000  # lines that are kept


class Console:
    """Leaving it writes the history, where there is a file for that."""

    def __init__(self, history: str | None = None) -> None:
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self._history = from_home(history) if history else None
        if isinstance(sys.stdin, io.TextIOWrapper):  # a line that cannot be decoded is ours to refuse, see `read`
            sys.stdin.reconfigure(errors="surrogateescape")

    def __enter__(self) -> Self:
        if self.interactive and readline and self._history and self._history.exists():
            try:
                readline.read_history_file(self._history)
            except OSError as error:  # it does not say of which file
                raise UsageError(f"the history in {self._history} cannot be read: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self.interactive and readline and self._history:
            readline.set_history_length(HISTORY)
            try:
                readline.write_history_file(self._history)
            except OSError as error:
                raise UsageError(f"the history cannot be written to {self._history}: {error.strerror}") from error
            with suppress(OSError):
                self._history.chmod(0o600)  # conversations are private

    def complete(self, words: Sequence[str]) -> None:
        """Let the tab key complete these at the start of a line."""
        if not (self.interactive and readline):
            return

        def completer(text: str, state: int) -> str | None:
            fitting = [f"{word} " for word in words if word.startswith(text)] if text.startswith("/") else []
            return fitting[state] if state < len(fitting) else None

        readline.set_completer(completer)
        readline.set_completer_delims(" ")
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")

    def read(self, prompt: str = "> ") -> str | None:
        """What was typed, lines that end with a backslash joined; None at the end of input.

        Raises UsageError for a line that is not UTF-8; on a terminal that is told, and the message asked for again.
        """
        lines: list[str] = []
        while True:
            try:
                lines.append(typed(input(self._prompt("... " if lines else prompt)), "the line"))
            except EOFError:
                return "\n".join(lines) if lines else None
            except UsageError as error:
                if not self.interactive:
                    raise
                self.note(str(error))
                lines.clear()
                continue
            if not lines[-1].endswith("\\"):
                return "\n".join(lines)
            lines[-1] = lines[-1][:-1]

    def piece(self, text: str) -> None:
        """Some more of an answer."""
        sys.stdout.write(safe(text) if self.interactive else text)
        sys.stdout.flush()

    def end(self, text: str) -> None:
        """The end of an answer, on a line of its own."""
        if not text.endswith("\n"):
            self.piece("\n")

    def note(self, text: str) -> None:
        """A remark of ours: never part of what a pipe gets."""
        sys.stderr.write(paint(safe(text), DIM, sys.stderr) + "\n")
        sys.stderr.flush()

    def _prompt(self, text: str) -> str:
        if not self.interactive:
            return ""
        if not coloured(sys.stdout):
            return text
        # readline must know which characters take no room
        return f"\x01\x1b[{GREEN}m\x02{text}\x01\x1b[0m\x02" if readline else f"\x1b[{GREEN}m{text}\x1b[0m"
