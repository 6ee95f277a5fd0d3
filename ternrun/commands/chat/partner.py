"""Who answers, as the session sees it: a model in this process, or a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens; None where the partner does not tell."""

    prompt: int | None = None
    cached: int | None = None
    generated: int | None = None


class Reply(Protocol):
    """Pieces of an answer as they come. Closing it ends the answer."""

    def __iter__(self) -> Iterator[str]: ...

    def close(self) -> None:
        """Let go; the answer ends where it is."""

    @property
    def reason(self) -> str:
        """Why it ended: stop, length; empty where it did not come to its end."""

    @property
    def usage(self) -> Usage:
        """What it took."""


class Partner(AbstractContextManager["Partner"], Protocol):
    """Both calls raise a TernrunError, at once or at the first piece, where there will be no answer."""

    name: str
    can_chat: bool  # False: it is known to have no chat template
    end: str  # what cuts an answer off that the user sets no limit to, and what helps

    def chat(self, messages: Sequence[Message], sampling: Mapping[str, Any]) -> Reply:
        """Answer a conversation; where its last message is the assistant's, go on with that."""

    def go_on(self, text: str, sampling: Mapping[str, Any]) -> Reply:
        """Continue a text."""
