"""Which packages may be used for training: a license label from package metadata, or None if not clearly permissive.

Only the package's own metadata counts. A License-Expression (PEP 639), or a License field in that syntax, is evaluated
as an SPDX expression. Free text and classifiers are rejected if they name a copyleft or unknown license, even beside a
permissive one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.parser import HeaderParser
from typing import Any

from ternrun.train.data.sources.spdx import is_expression, permitted

_PERMISSIVE = (
    ("Apache-2.0", r"apache"),
    ("MIT", r"\bmit\b"),
    ("BSD", r"\bbsd\b|\b[023]bsd\b|bsd-[0-4]-clause"),
    ("PSF-2.0", r"\bpsf\b|python software foundation|python-2\.0"),
    ("ISC", r"\bisc\b"),
    ("Unlicense", r"unlicense|public domain|\bcc0\b"),
    ("Zlib", r"\bzlib\b"),
    ("HPND", r"\bhpnd\b|historical permission"),
)
_NOT_PERMISSIVE = re.compile(
    r"gpl|gnu|affero|\bmpl\b|mozilla|\bepl\b|eclipse|\bcddl\b|proprietary|commercial|commons.clause|\bcc.by\b|\bbusl\b|"
    r"business source|sspl|server side public|\beupl\b|european union|\beula\b|licenseref|elastic|polyform|"
    r"share.?alike|\bosl\b|open software licen|cecill|\b[qr]pl\b",
    re.I,
)
_CLASSIFIER = "License :: "
_UNSPECIFIC = ("License :: OSI Approved", "License :: DFSG approved")


def license_of(metadata: str) -> str | None:
    """The permissive license declared by core metadata (the text of PKG-INFO or METADATA), or None."""
    headers = HeaderParser().parsestr(metadata)
    if expression := headers.get("License-Expression"):
        return permitted(expression)
    words = headers.get("License") or ""
    if is_expression(words):
        return permitted(words)
    classifiers = [c for c in headers.get_all("Classifier") or [] if c.startswith(_CLASSIFIER)]
    if not all(c in _UNSPECIFIC or permissive(c) for c in classifiers):
        return None
    return permissive(" ; ".join(filter(None, (words[:200], *classifiers))))


def permissive(words: str) -> str | None:
    """A label such as "MIT" or "Apache-2.0 / BSD" for licenses in free text; None if one is not permissive."""
    if _NOT_PERMISSIVE.search(words):
        return None
    found = [label for label, pattern in _PERMISSIVE if re.search(pattern, words, re.I)]
    return " / ".join(found) or None


def all_permissive(value: Any) -> str | None:
    """The label of one SPDX expression, or of a list of expressions that all apply; None if one is not permissive."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(v, str) for v in listed):
        return None
    labels = [permitted(v) for v in listed]
    return join_labels(filter(None, labels)) or None if all(labels) else None


def join_labels(labels: Iterable[str]) -> str:
    """Join labels without repeating a license: "MIT" and "MIT / BSD" become "MIT / BSD"."""
    return " / ".join(dict.fromkeys(part for label in labels for part in label.split(" / ")))
