"""Cut text at special tokens, before anything else is done to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set


class SpecialTokens:
    """Finds the leftmost token, the longest of those that start there (as Hugging Face's tokenizers do)."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._ids = ids
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
                    if done < at:
                        yield text[done:at]
                    yield i
                    done = at = at + length
                    break
            else:
                at += 1
        if done < len(text):
            yield text[done:]


def around_special(
    tokens: Sequence[str], special: Set[int], hidden: Set[int], encode: Callable[[str], list[int]], prefix: str
) -> Callable[[str, bool], list[int]]:
    """An encoder that cuts out special tokens, and encodes what lies between them with `prefix` before it.

    `hidden`: those that count as special only where the caller says so.
    """
    cut = {
        with_control: SpecialTokens({tokens[i]: i for i in sorted(found, reverse=True) if tokens[i]})
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
            opens = isinstance(piece, int)
        return ids

    return encode_text
