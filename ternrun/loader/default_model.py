"""The model that is used where none is named: TERNRUN_MODEL, else the small code model that the package carries."""

from __future__ import annotations

import os
from pathlib import Path

from ternrun.errors import UsageError

NAME = "code-9m"
DEFAULT = "TERNRUN_MODEL"
FILE = Path(__file__).parent.parent / "embedded" / f"{NAME}.gguf"


def located(path: str | Path | None) -> Path:
    """The path given; for None the model of TERNRUN_MODEL, else the carried one, which also goes by its name.

    Raises UsageError where that is wanted of an installation without it, and for an empty name: a script whose variable
    is empty wants some other model, not this one.
    """
    asked = (os.environ.get(DEFAULT) or NAME) if path is None else str(path)
    if not asked:
        raise UsageError("the name of the model is empty")
    if asked != NAME or Path(asked).exists():
        return Path(asked)
    if FILE.is_file():
        return FILE
    raise UsageError(
        "no model given, and this installation carries none: pass -m FILE (in Python: a path), set TERNRUN_MODEL, "
        "or download one with `ternrun pull OWNER/NAME`"
    )
