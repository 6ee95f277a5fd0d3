"""One text of a corpus, wherever it came from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """`group` is the unit that is held out as a whole (a package, a file's folder)."""

    name: str
    group: str
    licence: str
    text: str
