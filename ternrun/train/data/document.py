"""The unit of a training corpus."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """One text. A whole `group` (a package, or the folder of a file) can be held out of training."""

    name: str
    group: str
    license: str
    text: str
