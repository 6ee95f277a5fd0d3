"""Fields of a request that have no effect here: named in a header of its answer and, once for each, in the log."""

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
    """Of one request. A `strict` server refuses such fields, which is an ApiError here."""

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.names: dict[str, str] = {}  # path of a field, without places in lists -> the name that was probably meant

    @property
    def header(self) -> str:
        """The names, separated by commas, with the ones that were probably meant behind them."""
        return ", ".join(name + (f" (did you mean {meant}?)" if meant else "") for name, meant in self.names.items())

    def hint(self, path: str) -> None:
        """A field that this server knows and does nothing about. Raises ApiError."""
        if self.strict:
            raise ApiError(f"{path}: this server does not support it", param=path, code="unsupported")
        self._add(path, "")

    def harmless(self, path: str) -> None:
        """A field that has no effect on any answer, wherever it is sent: strict servers accept it, too."""
        self._add(path, "")

    def unknown(self, path: str, known: Iterable[str]) -> None:
        """A field that this server does not know; `known` are those that may stand in its place. Raises ApiError."""
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
    """Those of the request that this task is about to handle, and of the threads that it starts."""
    ignored = IgnoredFields(strict=strict)
    _CURRENT.set(ignored)
    return ignored


def current() -> IgnoredFields:
    """Those of the request that is being handled; outside of one, some that nobody reads."""
    return _CURRENT.get(None) or IgnoredFields()


def pass_over(value: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Note the keys of an object at `where` that are not `known` and not null. Raises ApiError on a strict server."""
    for name in value:
        if name in known or value[name] is None:
            continue
        if name in INNER_HINTS:
            current().harmless(f"{where}.{name}")
        else:
            current().unknown(f"{where}.{name}", known)


def _plain(path: str) -> str:
    """What may stand in a header: no place in a list, so that each field has one name, and safe characters."""
    return re.sub(r"[^A-Za-z0-9_.\[\]*-]", "?", re.sub(r"\[\d+\]", "[]", path[: 2 * LONGEST]))[:LONGEST]
