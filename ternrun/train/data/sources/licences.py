"""Which packages may be trained on: a licence label from package metadata, or None where it is not clearly permissive.

Only what the package itself declares counts. A License-Expression (PEP 639) is decided as the SPDX expression it is,
and so is a License that is written as one; free text and classifiers are refused where they name a copyleft or an
unknown licence beside a permissive one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
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
_REFUSED = re.compile(
    r"gpl|gnu|affero|\bmpl\b|mozilla|\bepl\b|eclipse|\bcddl\b|proprietary|commercial|commons.clause|\bcc.by\b|\bbusl\b|"
    r"business source|sspl|server side public|\beupl\b|european union|\beula\b|licenseref|elastic|polyform|"
    r"share.?alike|\bosl\b|open software licen|cecill|\b[qr]pl\b",
    re.I,
)
_CLASSIFIER = "License :: "
_SAYS_NOTHING = ("License :: OSI Approved", "License :: DFSG approved")


def licence_of(metadata: str) -> str | None:
    """The permissive licence that core metadata (PKG-INFO / METADATA text) declares, or None."""
    headers = HeaderParser().parsestr(metadata)
    if expression := headers.get("License-Expression"):
        return permitted(expression)
    words = headers.get("License") or ""
    if is_expression(words):
        return permitted(words)
    classifiers = [c for c in headers.get_all("Classifier") or [] if c.startswith(_CLASSIFIER)]
    if not all(c in _SAYS_NOTHING or permissive(c) for c in classifiers):
        return None
    return permissive(" ; ".join(filter(None, (words[:200], *classifiers))))


def permissive(words: str) -> str | None:
    """A label such as "MIT" or "Apache-2.0 / BSD" of the licences that free text names, None where one is another."""
    if _REFUSED.search(words):
        return None
    found = [label for label, pattern in _PERMISSIVE if re.search(pattern, words, re.I)]
    return " / ".join(found) or None


def all_permissive(value: Any) -> str | None:
    """The label of one SPDX expression, or of a list of them that hold together; None where one is not permissive."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(v, str) for v in listed):
        return None
    labels = [permitted(v) for v in listed]
    return joined(filter(None, labels)) or None if all(labels) else None


def joined(labels: Iterable[str]) -> str:
    """Each licence that the labels name, once: "MIT" and "MIT / BSD" make "MIT / BSD"."""
    return " / ".join(dict.fromkeys(part for label in labels for part in label.split(" / ")))


def summary(documents: Mapping[str, str]) -> dict[str, int]:
    """How many groups (packages) stand under each licence; `documents` maps a group to its licence."""
    counts: dict[str, int] = {}
    for licence in documents.values():
        counts[licence] = counts.get(licence, 0) + 1
    return dict(sorted(counts.items()))
