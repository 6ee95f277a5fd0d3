"""Which packages may be trained on: a licence label from package metadata, or None where it is not clearly permissive.

Only what the package itself declares counts (core metadata: License-Expression, License, Classifier); a declaration
that names a copyleft or an unknown licence beside a permissive one is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.parser import HeaderParser

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
    r"gpl|gnu|affero|\bmpl\b|mozilla|\bepl\b|eclipse|\bcddl\b|proprietary|commercial|\bcc-by-nc|\bbusl\b", re.I
)
_CLASSIFIER = "License :: "


def licence_of(metadata: str) -> str | None:
    """The permissive licence that core metadata (PKG-INFO / METADATA text) declares, or None."""
    headers = HeaderParser().parsestr(metadata)
    declared = [headers.get("License-Expression") or "", (headers.get("License") or "")[:200]]
    declared += [c for c in headers.get_all("Classifier") or [] if c.startswith(_CLASSIFIER)]
    return permissive(" ; ".join(filter(None, declared)))


def permissive(declaration: str) -> str | None:
    """A label such as "MIT" or "Apache-2.0 / BSD" where the declaration is permissive throughout, else None."""
    if _REFUSED.search(declaration):
        return None
    found = [label for label, pattern in _PERMISSIVE if re.search(pattern, declaration, re.I)]
    return " / ".join(found) or None


def summary(documents: Mapping[str, str]) -> dict[str, int]:
    """How many groups (packages) stand under each licence; `documents` maps a group to its licence."""
    counts: dict[str, int] = {}
    for licence in documents.values():
        counts[licence] = counts.get(licence, 0) + 1
    return dict(sorted(counts.items()))
