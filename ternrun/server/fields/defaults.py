"""The server's defaults for fields that a request omits: `--default NAME=VALUE`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ternrun.errors import UsageError
from ternrun.server.fields.reading import boolean
from ternrun.server.fields.sampling import SAMPLING, length
from ternrun.server.fields.sampling_params import Fields


def _names(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be an object")  # noqa: TRY004
    return value


DEFAULTS: Fields = {
    **SAMPLING,
    "max_tokens": (length, None),
    "chat_template_kwargs": (_names, None),
    "verbose": (boolean, False),
}


def read_defaults(given: Iterable[str]) -> dict[str, Any]:
    """Checked values by name, for every route with a field of that name. A value is JSON, or else text.

    Raises UsageError.
    """
    found = {}
    for one in given:
        name, equals, written = one.partition("=")
        if not equals or name not in DEFAULTS:
            raise UsageError(f"--default takes NAME=VALUE, NAME being one of {', '.join(DEFAULTS)}; not {one!r}")
        try:
            found[name] = DEFAULTS[name][0](_value(written))
        except ValueError as error:
            raise UsageError(f"--default {name}: {error}") from None
    return found


def _value(written: str) -> Any:
    try:
        return json.loads(written)
    except ValueError:
        return written
