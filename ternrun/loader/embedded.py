"""The model that the package carries, used where none is named: a small code model made by `ternrun train`."""

from __future__ import annotations

from pathlib import Path

from ternrun.errors import UsageError

NAME = "code-9m"
FILE = Path(__file__).parent.parent / "embedded" / f"{NAME}.gguf"


def located(path: str | Path | None) -> Path:
    """The path given; the carried model for None, and for its name where no file is called so.

    Raises UsageError where that is wanted of an installation without it, and for an empty name: a script whose variable
    is empty wants some other model, not this one.
    """
    asked = NAME if path is None else str(path)
    if not asked:
        raise UsageError("the name of the model is empty")
    if asked != NAME or Path(asked).exists():
        return Path(asked)
    if FILE.is_file():
        return FILE
    raise UsageError(
        "no model given, and this installation carries none: pass -m FILE (in Python: a path), "
        "or download one with `ternrun pull OWNER/NAME`"
    )
