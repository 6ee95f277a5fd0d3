"""What was said so far, and the file it is kept in: JSON, `{"messages": [{"role": ..., "content": ...}, ...]}`."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ternrun.errors import UsageError
from ternrun.files import replacing
from ternrun.loader.user_path import from_home

MAX_FILE = 64 << 20  # bytes
ROLES = ("user", "assistant")


@dataclass(slots=True)
class Conversation:
    """Messages of the user and the model in turn, and a system message in front."""

    system: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)
    file: Path | None = None  # where it was saved or loaded last; only that may be written over unasked

    def all(self) -> list[dict[str, str]]:
        """What a chat template gets."""
        return [*([{"role": "system", "content": self.system}] if self.system else []), *self.messages]

    def text(self) -> str:
        """All of it as one text, for a model that only continues text."""
        return "".join(message["content"] for message in self.messages)

    def add(self, role: str, content: str) -> None:
        """Append one message."""
        self.messages.append({"role": role, "content": content})

    def drop(self, role: str) -> str | None:
        """Remove the last message where it is of that role; returns its text, or None."""
        if self.messages and self.messages[-1]["role"] == role:
            return self.messages.pop()["content"]
        return None

    def save(self, path: str, *, force: bool = False) -> None:
        """Write it to a file, which holds what it held before until all of it is.

        Raises OSError, UsageError; a file that holds something else is written over only by `force`.
        """
        file, data = from_home(path).resolve(), _json({"messages": self.all()})
        if file.exists() and not file.is_file():  # a pipe or a device takes the text, and stays
            file.write_bytes(data)
            return
        if file.exists() and not force and file != self.file:
            raise UsageError(f"{path} is there already; /save {path} --force writes over it")
        with replacing(file) as beside:
            beside.write_bytes(data)
            if file.exists():
                shutil.copymode(file, beside)
        self.file = file

    @classmethod
    def load(cls, path: str) -> Self:
        """What `save` wrote, or a bare list of messages. Raises UsageError, OSError."""
        file = from_home(path)
        if file.stat().st_size > MAX_FILE:
            raise UsageError(f"{path} is too large for a conversation")
        try:
            value: Any = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path} is not JSON: {error}") from error
        messages = value.get("messages") if isinstance(value, dict) else value
        if not isinstance(messages, list) or not all(map(_is_message, messages)):
            raise UsageError(f"{path} holds no conversation: a list of messages with role and content is expected")
        told = cls(file=file.resolve())
        for message in messages:
            if message["role"] in ROLES:
                told.add(message["role"], message["content"])
            elif not told.messages and told.system is None and message["role"] in ("system", "developer"):
                told.system = message["content"]
            else:
                raise UsageError(f"{path}: a message of the role {message['role'][:40]!r} cannot stand there")
        return told


def _json(value: Any) -> bytes:
    """One text of UTF-8; what that cannot hold (a lone surrogate of a file that was loaded) is escaped."""
    try:
        return json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(value, indent=1).encode() + b"\n"


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)
