"""Records the fields of a request without effect, for a response header and the log."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextvars import ContextVar
from difflib import get_close_matches
from typing import Any

from ternrun.server.fields.unsupported import INNER_HINTS
from ternrun.server.http.errors import ApiError

HEADER = "X-Ternrun-Ignored"
MOST = 32  # names that are kept of one request: to find what was meant by a name takes time
LONGEST = 64  # characters of a name that are kept


class IgnoredFields:
    """The ignored fields of one request. A `strict` server raises ApiError instead."""

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.names: dict[str, str] = {}  # path of a field, without places in lists -> the name that was probably meant

    @property
    def header(self) -> str:
        """The names, separated by commas, each with its probable meaning."""
        return ", ".join(name + (f" (did you mean {meant}?)" if meant else "") for name, meant in self.names.items())

    def hint(self, path: str) -> None:
        """Note a known field without effect. Raises ApiError on a strict server."""
        if self.strict:
            raise ApiError(f"{path}: this server does not support it", param=path, code="unsupported")
        self._add(path, "")

    def harmless(self, path: str) -> None:
        """Note a field that has no effect on any server. Strict servers accept it too."""
        self._add(path, "")

    def unknown(self, path: str, known: Iterable[str]) -> None:
        """Note an unknown field; `known` are the fields that may stand there. Raises ApiError on a strict server."""
        name = path.rpartition(".")[2][:100]  # no field's is as long, and the search takes longer for long ones
        if not self.strict and (len(self.names) >= MOST or _plain(path) in self.names):
            return
        near = get_close_matches(name, known, 1)
        if self.strict:
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ApiError(f"unknown field {path[:100]!r}{hint}", param=path[:100], code="unknown_field")
        self._add(path, near[0] if near else "")

    def _add(self, path: str, meant: str) -> None:
        if len(self.names) < MOST:
            self.names.setdefault(_plain(path), meant)


_CURRENT: ContextVar[IgnoredFields] = ContextVar("ignored")


def begin(*, strict: bool) -> IgnoredFields:
    """Start recording for the request that this task handles, including its threads."""
    ignored = IgnoredFields(strict=strict)
    _CURRENT.set(ignored)
    return ignored


def current() -> IgnoredFields:
    """The record of the current request; outside of a request, one that nobody reads."""
    return _CURRENT.get(None) or IgnoredFields()


def pass_over(value: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Note keys of the object at `where` that are neither `known` nor null. Raises ApiError on a strict server."""
    for name in value:
        if name in known or value[name] is None:
            continue
        if name in INNER_HINTS:
            current().harmless(f"{where}.{name}")
        else:
            current().unknown(f"{where}.{name}", known)


def _plain(path: str) -> str:
    """The field's name for a header: without list indices, and with safe characters only."""
    return re.sub(r"[^A-Za-z0-9_.\[\]*-]", "?", re.sub(r"\[\d+\]", "[]", path[: 2 * LONGEST]))[:LONGEST]
