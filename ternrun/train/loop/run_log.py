"""What a run writes down: one JSON object a line, TensorBoard where it is installed, one moving line for people."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, TextIO

from ternrun.progress import bar

_CLEAR = "\r\x1b[K"  # back to the row's beginning, and nothing on it


class RunLog:
    """`log.jsonl` in the run's folder; lines of steps after `step` (redone on resume) are dropped."""

    def __init__(self, folder: Path, step: int, stream: TextIO = sys.stderr) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.stream = folder / "log.jsonl", stream
        kept = [line for line in self.entries(self.path) if line["step"] <= step]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._file = self.path.open("a", encoding="utf-8", buffering=1)
        self._board = _tensorboard(folder)
        self._moving = False  # does the last row of the terminal show progress?

    @staticmethod
    def entries(path: Path) -> list[dict[str, Any]]:
        """All whole lines of a log (a kill may leave half a line)."""
        found = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def write(self, step: int, **values: Any) -> None:
        """Record numbers (and perhaps a text) of one step."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        for key, value in values.items() if self._board else ():
            if isinstance(value, (int, float)):
                self._board.add_scalar(key, value, step)

    def say(self, text: str) -> None:
        """A line that stays."""
        print(f"{_CLEAR if self._moving else ''}{text}", file=self.stream, flush=True)
        self._moving = False

    def progress(self, text: str, share: float | None = None) -> None:
        """A line that stays; on a terminal one that the next replaces, behind a bar filled by `share`.

        It is cut to the terminal's width there, for only one row can be replaced.
        """
        if not self.stream.isatty():
            self.say(text)
            return
        line = text if share is None else f"{bar(share)} {text}"
        print(f"{_CLEAR}{line[: get_terminal_size().columns - 1]}", end="", file=self.stream, flush=True)
        self._moving = True

    def close(self) -> None:
        """Close the files, and end the moving line: the next word, an error's perhaps, gets its own."""
        if self._moving:
            print(file=self.stream, flush=True)
            self._moving = False
        self._file.close()
        if self._board:
            self._board.close()


def _tensorboard(folder: Path) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"))
