"""Reading a file for a person: an error says what kind of file it is, where that is known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ternrun.errors import LoadError


@contextmanager
def explain_errors(path: Path) -> Iterator[None]:
    """Replace a LoadError of the block by the sentence for the kind of file at `path`, if it is a known kind.

    A reader such as `open_gguf` names only the fault that it meets first.
    """
    try:
        yield
    except LoadError as error:
        from ternrun.loader.unsupported.describe import describe  # only errors need the tables of file kinds

        if path.is_file() and (kind := describe(path)):
            raise LoadError(f"{path} {kind}") from error
        raise
