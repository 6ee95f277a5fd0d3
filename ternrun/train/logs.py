"""What a run writes down: one JSON object a line, TensorBoard where it is installed, one moving line for people."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any, TextIO


class RunLog:
    """`log.jsonl` in the run's folder; lines of steps after `step` (redone on resume) are dropped."""

    def __init__(self, folder: Path, step: int, stream: TextIO = sys.stderr) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.stream = folder / "log.jsonl", stream
        kept = [line for line in self.entries(self.path) if line["step"] <= step]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._file = self.path.open("a", encoding="utf-8", buffering=1)
        self._board = _tensorboard(folder)

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
        print(text, file=self.stream, flush=True)

    def progress(self, text: str) -> None:
        """A line that the next one replaces on a terminal, and stays elsewhere."""
        print(
            f"\r{text}\x1b[K" if self.stream.isatty() else text,
            end="" if self.stream.isatty() else "\n",
            file=self.stream,
            flush=True,
        )

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board:
            self._board.close()


def _tensorboard(folder: Path) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"))
