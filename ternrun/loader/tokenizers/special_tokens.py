"""Cut text at special tokens, before anything else is done to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set

Strips = Mapping[int, tuple[bool, bool]]
NO_STRIPS: Strips = {}
_SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


class SpecialTokens:
    """Finds the leftmost token, the longest of those that start there (as Hugging Face's tokenizers do).

    `strips`: for a token's id, whether it swallows the spaces before it, and those behind it.
    """

    def __init__(self, ids: Mapping[str, int], strips: Strips = NO_STRIPS) -> None:
        self._ids = ids
        self._strips = strips
        # thousands of tokens have few first letters: search for these, then try the lengths that occur behind two
        lengths: dict[str, set[int]] = {}
        for text in ids:
            lengths.setdefault(text[:2], set()).add(len(text))
        alone = {start for start in lengths if len(start) == 1}
        self._lengths = {s: sorted(n | {1} if s[0] in alone else n, reverse=True) for s, n in lengths.items()}
        first = "".join(map(re.escape, {start[0] for start in lengths}))
        self._find = re.compile(f"[{first}]").search if first else None

    def split(self, text: str) -> Iterator[str | int]:
        """Pieces of text that hold no special token, and the ids between them; no piece is empty."""
        done = at = 0
        while self._find is not None and (match := self._find(text, at)):
            at = match.start()
            for length in self._lengths.get(text[at : at + 2]) or self._lengths.get(text[at]) or ():
                if (i := self._ids.get(text[at : at + length])) is not None:
                    before, behind = self._strips.get(i, (False, False))
                    if piece := text[done:at].rstrip(_SPACES) if before else text[done:at]:
                        yield piece
                    yield i
                    at += length
                    if behind:
                        at = _skip_spaces(text, at)
                    done = at
                    break
            else:
                at += 1
        if done < len(text):
            yield text[done:]


def _skip_spaces(text: str, at: int) -> int:
    while text[at : at + 1] in _SPACES and at < len(text):
        at += 1
    return at


def around_special(
    tokens: Sequence[str], special: Set[int], hidden: Set[int], encode: Callable[[str], list[int]], prefix: str,
    *, prefix_once: bool = False, strips: Strips = NO_STRIPS,
) -> Callable[[str, bool], list[int]]:  # fmt: skip
    """Return an encoder that cuts out special tokens, and encodes what lies between them with `prefix` before it.

    `hidden`: those that count as special only where the caller says so. `prefix_once`: only the beginning of the whole
    text gets the prefix. `strips`: see `SpecialTokens`.
    """
    cut = {
        with_control: SpecialTokens({tokens[i]: i for i in sorted(found, reverse=True) if tokens[i]}, strips)
        for with_control, found in ((True, special), (False, special - hidden))
    }

    def encode_text(text: str, with_control: bool) -> list[int]:
        ids: list[int] = []
        opens = True
        for piece in cut[with_control].split(text):
            if isinstance(piece, int):
                ids.append(piece)
            else:
                ids += encode(prefix + piece if opens else piece)
            opens = isinstance(piece, int) and not prefix_once
        return ids

    return encode_text
