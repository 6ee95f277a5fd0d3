"""Token boundary augmentation: windows are cut inside tokens, as the end of a prompt cuts a text.

Both sides of a cut are tokenized separately, and the model learns the second side after the first. A tokenizer that
joins a line end with the indentation after it, or a space with the word after it, never shows one without the other
inside a text. A model trained on such tokens only does not continue a prompt that ends between them (the prompt
boundary problem, arXiv 2403.08688).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ternrun.train.data.repetition import IGNORE_INDEX

MAX_CUTS = 8  # per window
CONTEXT = 2  # tokens on each side of the cut token that are tokenized again together with its halves

Ids = NDArray[np.int64]


def token_boundary_augment(
    window: Ids, tokenizer: Tokenizer, line_ends: Ids, rng: np.random.Generator
) -> tuple[Ids, Ids]:
    """Inputs and targets (n - 1,) of a window (n,) cut inside 1 to `MAX_CUTS` tokens, cut to the window's length.

    Half of the cuts are in tokens that begin with a line end (`line_ends`) or follow one, where most prompts end.
    Tokens before a cut that only the cut produces are never targets; there the uncut text is learned.
    """
    ids, targets = window[:-1], window[1:]
    end = len(ids) - CONTEXT
    for at in _cut_positions(ids, line_ends, rng):
        start, stop = at - CONTEXT, at + CONTEXT + 1
        if start < 1 or stop > end:
            continue
        if split := _split_token(ids[start:stop].tolist(), tokenizer, rng):
            end = start
            first, second, same = split
            cut = start + same  # the first input that differs
            inputs = [ids[:cut], first[same:], second, ids[stop:]]
            learned = [targets[:cut], [IGNORE_INDEX] * (len(first) - same - 1), second, targets[stop - 1 :]]
            ids, targets = (np.concatenate([np.asarray(p, np.int64) for p in parts]) for parts in (inputs, learned))
    return ids[: len(window) - 1], targets[: len(window) - 1]


def _cut_positions(ids: Ids, line_ends: Ids, rng: np.random.Generator) -> list[int]:
    """Positions of the tokens to cut, from last to first, so that a cut does not move the positions that follow."""
    breaks = np.flatnonzero(np.isin(ids, line_ends))
    anywhere = rng.integers(0, len(ids), MAX_CUTS)
    at_break = rng.choice(breaks, MAX_CUTS) + rng.integers(0, 2, MAX_CUTS) if len(breaks) else anywhere
    positions = np.where(rng.random(MAX_CUTS) < 0.5, anywhere, at_break)[: int(rng.integers(1, MAX_CUTS + 1))]
    return sorted(set(positions.tolist()), reverse=True)


def _split_token(
    tokens: list[int], tokenizer: Tokenizer, rng: np.random.Generator
) -> tuple[list[int], list[int], int] | None:
    """Tokens before and after a random cut inside the middle token, and how many of the first ones are unchanged.

    None if the token has fewer than two characters, or tokenizing the text of `tokens` does not return `tokens` (at the
    end of a document, or inside a character).
    """
    text, before, through = (tokenizer.decode(tokens[:n]) for n in (len(tokens), CONTEXT, CONTEXT + 1))
    if len(through) - len(before) < 2 or _encode(tokenizer, text) != tokens:
        return None
    at = int(rng.integers(len(before) + 1, len(through)))
    first, second = _encode(tokenizer, text[:at]), _encode(tokenizer, text[at:])
    same = next((i for i, (a, b) in enumerate(zip(first, tokens, strict=False)) if a != b), len(first))
    fits = same < len(first) and len(first) + len(second) >= len(tokens)  # fewer tokens would shorten the window
    return (first, second, same) if fits else None


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)
