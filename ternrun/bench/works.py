"""What can be measured of a model, by name: `pp128`, `tg64`, `batch8`, `ctx4096`, `load`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ternrun.errors import UsageError

DECODED = 32  # tokens of each sequence that a run of `batch` and `ctx` times
KINDS = {
    "pp": "a prompt of N tokens",
    "tg": "N tokens of one sequence, from an empty context",
    "batch": f"N sequences that decode together, {DECODED} tokens each",
    "ctx": f"tokens of one sequence with N tokens before them, {DECODED} at a time",
}
PLAIN = {
    "load": "process start to first token",
    "kernels": "matrix products on their own",
    "machine": "bandwidth and instruction ceilings only",
}
SWEEP = (512, 1024, 2048, 4096)
TOUR = ("machine", "kernels", "load", "pp128", "pp512", "tg64", "batch8", "batch16", "context")
LARGEST = 1 << 17


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of work and its number (0 where it takes none)."""

    kind: str
    number: int = 0

    @property
    def name(self) -> str:
        """As it is written."""
        return f"{self.kind}{self.number or ''}"


def parse(text: str, context: int) -> list[Work]:
    """Works of a comma-separated list, `context` being those of SWEEP that fit a context of so many tokens.

    Raises UsageError for an unknown work, or one that does not fit.
    """
    found: list[Work] = []
    for name in filter(None, (word.strip() for word in text.split(","))):
        if name == "context":
            found += [Work("ctx", n) for n in SWEEP if n <= context]
        elif name in PLAIN:
            found.append(Work(name))
        else:
            found.append(_numbered(name, context))
    if not found:
        raise UsageError("there is nothing to measure: name some work, as in --work pp128,tg64")
    return list(dict.fromkeys(found))


def _numbered(name: str, context: int) -> Work:
    match = re.fullmatch(r"([a-z]+)([0-9]{1,6})", name)
    if match is None or match[1] not in KINDS:
        known = ", ".join([*(f"{kind}N" for kind in KINDS), "context", *PLAIN])
        raise UsageError(f"{name!r} is not a work that can be measured; these are: {known}")
    work = Work(match[1], int(match[2]))
    if not 1 <= work.number <= (4096 if work.kind == "batch" else LARGEST):
        raise UsageError(f"{name}: {work.number} is out of range")
    if work.kind != "batch" and work.number + (0 if work.kind == "ctx" else 1) > context:
        raise UsageError(f"{name} needs a longer context than this model's {context} tokens")
    if work.kind == "ctx" and work.number < 2 * DECODED:
        raise UsageError(f"{name}: a context of at least {2 * DECODED} tokens is needed")
    return work
