"""Context shift: a sequence that fills its context drops its middle and continues, as in llama.cpp.

The kept tokens are computed again at their new positions, so the result depends on the kept ids alone. llama.cpp moves
keys and values that depend on dropped tokens instead, which costs less and gives other tokens.
"""

from __future__ import annotations

from typing import NamedTuple

NEXT_SEED = 0x9E3779B97F4A7C15  # added at each shift: far from the seeds of other choices, which follow each other


class ContextShift(NamedTuple):
    """llama.cpp's `n_keep` and `n_discard`."""

    keep: int = 0  # leading tokens that are never dropped; -1: the whole prompt
    discard: int = 0  # tokens dropped behind those; 0: half of them


def shift_tokens(ids: list[int], prompt: int, shift: ContextShift) -> list[int]:
    """`ids` without their middle, shorter by at least one. The first `prompt` ids are the prompt's.

    The last token always stays, and `keep` never covers the last four.
    """
    keep = min(prompt if shift.keep < 0 else shift.keep, max(0, len(ids) - 4))
    after = len(ids) - keep
    discard = max(1, min(shift.discard or after // 2, after - 1))
    return ids[:keep] + ids[keep + discard :]
