"""The log of a run: JSON lines, TensorBoard if it is installed, and a progress line on standard error."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, TextIO

from ternrun.progress import bar

_CLEAR_LINE = "\r\x1b[K"


class RunLog:
    """Writes `log.jsonl` in the run's folder. Entries after `step`, which a resumed run repeats, are dropped."""

    def __init__(self, folder: Path, step: int, stream: TextIO = sys.stderr) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.stream = folder / "log.jsonl", stream
        kept = [entry for entry in self.entries(self.path) if entry["step"] <= step]
        self.path.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
        self._file = self.path.open("a", encoding="utf-8", buffering=1)
        self._board = _tensorboard(folder)
        self._on_progress_line = False  # whether the terminal's last row is the progress line

    @staticmethod
    def entries(path: Path) -> list[dict[str, Any]]:
        """All complete lines of a log. A kill can leave an incomplete last line."""
        found = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def write(self, step: int, **values: Any) -> None:
        """Record the numbers and texts of one step."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        for key, value in values.items() if self._board else ():
            if isinstance(value, (int, float)):
                self._board.add_scalar(key, value, step)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        print(f"{_CLEAR_LINE if self._on_progress_line else ''}{text}", file=self.stream, flush=True)
        self._on_progress_line = False

    def progress(self, text: str, share: float | None = None) -> None:
        """Print a line; on a terminal, one that the next line replaces, with a bar filled by `share` (0 to 1).

        On a terminal the line is cut to the width, since only one row can be replaced.
        """
        if not self.stream.isatty():
            self.say(text)
            return
        line = text if share is None else f"{bar(share)} {text}"
        print(f"{_CLEAR_LINE}{line[: get_terminal_size().columns - 1]}", end="", file=self.stream, flush=True)
        self._on_progress_line = True

    def close(self) -> None:
        """Close the files and end the progress line, so that later output starts on a new row."""
        if self._on_progress_line:
            print(file=self.stream, flush=True)
            self._on_progress_line = False
        self._file.close()
        if self._board:
            self._board.close()


def _tensorboard(folder: Path) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"))
