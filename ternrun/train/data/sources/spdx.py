"""SPDX license expressions (SPDX 2.3, annex D): does an expression permit training?

Every operand of AND must be permissive, one operand of OR is enough, and WITH must name an exception that only adds
permissions.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

_LICENSES = {  # label -> SPDX ids in lower case
    "Apache-2.0": "apache-2.0",
    "MIT": "mit mit-0 mit-cmu mit-modern-variant x11",
    "BSD": "0bsd bsd-1-clause bsd-2-clause bsd-2-clause-patent bsd-3-clause bsd-3-clause-clear bsd-4-clause",
    "PSF-2.0": "psf-2.0 python-2.0 python-2.0.1 cnri-python",
    "ISC": "isc",
    "Unlicense": "unlicense cc0-1.0",
    "Zlib": "zlib",
    "HPND": "hpnd",
    "BSL-1.0": "bsl-1.0",
}
_LABELS = {name: label for label, names in _LICENSES.items() for name in names.split()}
_EXCEPTIONS = ("llvm-exception", "swift-exception")
_OPERATORS = ("and", "or", "with")
_Part = Callable[[deque[str]], "set[str] | None"]
_EXPRESSION = re.compile(r"\(*[\w.+:-]+\)*( (AND|OR|WITH) \(*[\w.+:-]+\)*)+")


def is_expression(text: str) -> bool:
    """Whether the text is an SPDX expression of several licenses, not prose."""
    return _EXPRESSION.fullmatch(text.strip()) is not None


def permitted(expression: str) -> str | None:
    """A label such as "MIT" or "Apache-2.0 / BSD" if the expression permits training, else None."""
    words = deque(re.findall(r"[()]|[^\s()]+", expression.lower()))
    try:
        labels = _any(words)
    except (IndexError, RecursionError):  # incomplete, or nested too deeply
        return None
    if words or labels is None:
        return None
    return " / ".join(sorted(labels, key=list(_LICENSES).index))


def _any(words: deque[str]) -> set[str] | None:
    allowed = [labels for labels in _joined_by("or", _all, words) if labels is not None]
    return set[str]().union(*allowed) if allowed else None


def _all(words: deque[str]) -> set[str] | None:
    found = _joined_by("and", _one, words)
    every = [labels for labels in found if labels is not None]
    return set[str]().union(*every) if len(every) == len(found) else None


def _joined_by(operator: str, part: _Part, words: deque[str]) -> list[set[str] | None]:
    """Parse operands with `part` until the operator ends."""
    found = [part(words)]
    while words and words[0] == operator:
        words.popleft()
        found.append(part(words))
    return found


def _one(words: deque[str]) -> set[str] | None:
    """Parse a license with its exception, or an expression in brackets."""
    word = words.popleft()
    if word == "(":
        inside = _any(words)
        return inside if words.popleft() == ")" else None
    label = None if word in _OPERATORS else _LABELS.get(word.removesuffix("+"))
    if words and words[0] == "with":
        words.popleft()
        label = label if words.popleft() in _EXCEPTIONS else None
    return None if label is None else {label}
