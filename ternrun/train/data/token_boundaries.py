"""Text cut as the end of a prompt cuts it: both sides are tokenized alone, and the second is learned after the first.

A tokenizer that joins a line end with the indentation behind it, or a space with the word behind it, never shows the
one without the other inside a text. To a model that saw only such tokens, a prompt that ends there is the end of
everything (the prompt boundary problem, arXiv 2403.08688).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ternrun.train.data.repetition import IGNORED

MOST = 8  # cuts in a window
REACH = 2  # tokens on either side of the one that is cut, which are tokenized anew with its halves

Ids = NDArray[np.int64]


def seams(window: Ids, tokenizer: Tokenizer, line_ends: Ids, rng: np.random.Generator) -> tuple[Ids, Ids]:
    """Inputs and targets (n - 1,) of a window (n,) cut inside 1 to `MOST` of its tokens, as much of it as finds room.

    Half of the cuts, where prompts end most, are in tokens that begin with a line end (`line_ends`) or follow one. What
    only a cut makes of the tokens before it is never a target; there the uncut text stays what is learned.
    """
    ids, targets = window[:-1], window[1:]
    breaks = np.flatnonzero(np.isin(ids, line_ends))
    anywhere = rng.integers(0, len(ids), MOST)
    at_break = rng.choice(breaks, MOST) + rng.integers(0, 2, MOST) if len(breaks) else anywhere
    places = np.where(rng.random(MOST) < 0.5, anywhere, at_break)[: int(rng.integers(1, MOST + 1))]
    end = len(ids) - REACH
    for at in sorted(set(places.tolist()), reverse=True):  # from the last, so that earlier places stay where they are
        start, stop = at - REACH, at + REACH + 1
        if start < 1 or stop > end:
            continue
        if halves := _halves(ids[start:stop].tolist(), tokenizer, rng):
            end = start
            first, second, same = halves
            cut = start + same  # the first input that differs
            shown = [ids[:cut], first[same:], second, ids[stop:]]
            learned = [targets[:cut], [IGNORED] * (len(first) - same - 1), second, targets[stop - 1 :]]
            ids, targets = (np.concatenate([np.asarray(p, np.int64) for p in parts]) for parts in (shown, learned))
    return ids[: len(window) - 1], targets[: len(window) - 1]


def _halves(
    tokens: list[int], tokenizer: Tokenizer, rng: np.random.Generator
) -> tuple[list[int], list[int], int] | None:
    """Tokens of the text before and behind a cut inside the middle token, and how many of the first stayed the same.

    None where the token has no inside, or the tokens are not what their text is tokenized to (ends of documents, halves
    of characters).
    """
    text, before, behind = (tokenizer.decode(tokens[:n]) for n in (len(tokens), REACH, REACH + 1))
    if len(behind) - len(before) < 2 or _encoded(tokenizer, text) != tokens:
        return None
    at = int(rng.integers(len(before) + 1, len(behind)))
    first, second = _encoded(tokenizer, text[:at]), _encoded(tokenizer, text[at:])
    same = next((i for i, (a, b) in enumerate(zip(first, tokens, strict=False)) if a != b), len(first))
    fits = same < len(first) and len(first) + len(second) >= len(tokens)  # fewer would leave a window too short
    return (first, second, same) if fits else None


def _encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)
