"""Files that are not whole, by their names: pieces of a file that was cut, and downloads that have not ended."""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote

_PIECE = re.compile(
    r"(?P<whole>.+?)"
    r"(?:(?P<word>[.\-_](?:part|split|chunk|piece)[.\-_]?)(?P<number>\d{1,5}|[a-z]{1,3})|(?P<dot>\.)(?P<bare>\d{2,3}|a[a-z]))"
    r"(?P<of>[.\-_]?of[.\-_]?(?P<total>\d{1,5}))?(?P<end>\.gguf)?",
    re.IGNORECASE,
)
_OURS = re.compile(r"(.+)\.[0-9a-f]{12}\.part")
_UNFINISHED = {
    ".part": "the program that was loading it",
    ".partial": "the program that was loading it",
    ".incomplete": "the Hugging Face hub's client (hf download, or `ternrun pull`)",
    ".crdownload": "the browser",
    ".download": "the browser",
    ".opdownload": "the browser",
    ".aria2": "aria2c",
    ".tmp": "the program that was writing it",
}


def unfinished(path: Path) -> str | None:
    """What a file that is not whole is, by its name: the rest of a sentence behind its path; None for other names."""
    ours = _OURS.fullmatch(path.name)
    if ours:
        return f"is what has arrived of {ours[1]}; run the same `ternrun pull` again, which goes on from there"
    if path.suffix in _UNFINISHED:
        return f"is an unfinished download; let {_UNFINISHED[path.suffix]} finish it"
    piece = _PIECE.fullmatch(path.name)
    return _joined(path, piece) if piece else None


def _joined(path: Path, piece: re.Match[str]) -> str:
    """The command that joins all pieces in their order, by patterns that sort as the pieces do."""
    whole = path.with_name(piece["whole"] + (piece["end"] or ""))
    if whole.is_file():
        return f"is one part of a model that lies whole beside it; name {whole}"
    number, lead = piece["number"] or piece["bare"], piece["whole"] + (piece["word"] or piece["dot"])
    tail = (piece["of"] or "") + (piece["end"] or "")
    widths = [len(number)]
    if piece["total"] and number.isdecimal() and not number.startswith("0"):
        widths = list(range(1, len(str(int(piece["total"]))) + 1))
    patterns = (f"{quote(str(path.with_name(lead)))}{'?' * width}{quote(tail) if tail else ''}" for width in widths)
    count = f"all {int(piece['total'])} parts" if piece["total"] else "all its parts"
    return f"is one part of {whole.name}, not the whole; join {count}: cat {' '.join(patterns)} > {quote(str(whole))}"
