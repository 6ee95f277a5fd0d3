"""Where the user types and reads: a terminal with line editing, or a pipe that gets the answers alone."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Self

from ternrun.commands.chat.history import History
from ternrun.commands.chat.message import read_message
from ternrun.commands.inputs import typed
from ternrun.commands.terminal import DIM, GREEN, coloured, paint, safe
from ternrun.errors import UsageError

try:
    import readline
except ImportError:  # Windows: the terminal itself edits lines
    readline = None  # type: ignore[assignment]


class Console:
    """Entering it reads the history of what was typed and leaving it writes it, on a terminal only; see History."""

    def __init__(self, history: str | None = None) -> None:
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self._history = History(history)
        if isinstance(sys.stdin, io.TextIOWrapper):  # a line that cannot be decoded is ours to refuse, see `read`
            sys.stdin.reconfigure(errors="surrogateescape")

    def __enter__(self) -> Self:
        if self.interactive:
            self._history.read()
        return self

    def __exit__(self, *_: object) -> None:
        if self.interactive:
            self._history.write()

    def complete(self, words: Sequence[str], settings: Sequence[str] = ()) -> None:
        """Let the tab key complete these words at the start of a line, and the names of settings after `/set`."""
        if not (self.interactive and readline):
            return

        def completer(text: str, state: int) -> str | None:
            before = readline.get_line_buffer()[: readline.get_begidx()].split()
            among = words if not before else settings if before in (["/set"], ["/set", "parameter"]) else ()
            fitting = [f"{word} " for word in among if word.startswith(text)] if text or before else []
            return fitting[state] if state < len(fitting) else None

        readline.set_completer(completer)
        readline.set_completer_delims(" ")
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")

    def read(self, prompt: str = "> ") -> str | None:
        """One message as `read_message` reads it; None at the end of input.

        Raises UsageError for a line that is not UTF-8; on a terminal that is told, and the message asked for again.
        """
        while True:
            try:
                return read_message(lambda begun: typed(input(self._prompt("... " if begun else prompt)), "the line"))
            except EOFError:
                return None
            except UsageError as error:
                if not self.interactive:
                    raise
                self.note(str(error))

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
