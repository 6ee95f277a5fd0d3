"""Byte-pair merging: from text to token ids, as GPT-2's byte-level tokenizers and as SentencePiece do it.

Own code rather than `tokenizers.models.BPE`: that needs every merge spelled out and indexed before the first word
(0.3 s for llama-3, over 1 s for gemma), where these few lines look up only what the text asks for, and encode long
texts no slower. Merging the best pair first, the leftmost of equals, is llama.cpp's order and SentencePiece's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import TypeAlias

from numpy import float64
from numpy.typing import NDArray

from ternrun.loader.tokenizers.pretokenizers import PreTokenizer
from ternrun.loader.tokenizers.token_bytes import ALPHABET, CONTROL, SPACE, UNKNOWN
from ternrun.loader.tokenizers.vocabulary import Vocabulary

Rank: TypeAlias = Callable[[str, str], float | None]  # of two neighbours; lower merges first, None: never

_CACHED_WORDS = 1 << 16
_CACHED_LENGTH, _CACHED_IDS = 64, 16  # of one word: 60 random letters would take a kilobyte


def merge(symbols: list[str], rank: Rank) -> list[str]:
    """Join neighbours, best pair first, until no pair has a rank. O(n log n). Empties `symbols` as it goes."""
    n = len(symbols)
    after, before = list(range(1, n + 1)), list(range(-1, n - 1))
    queue = [  # rank, index of the left symbol, text of both
        (r, i, left + right)
        for i, (left, right) in enumerate(pairwise(symbols))
        if (r := rank(left, right)) is not None
    ]
    heapify(queue)
    while queue:
        _, i, text = heappop(queue)
        j = after[i]
        if j >= n or not symbols[i] or symbols[i] + symbols[j] != text:
            continue  # one of the two has merged with another since
        symbols[i], symbols[j] = text, ""
        h, k = before[i], after[j]
        after[i] = k
        if k < n:
            before[k] = i
            if (r := rank(text, symbols[k])) is not None:
                heappush(queue, (r, i, text + symbols[k]))
        if h >= 0 and (r := rank(symbols[h], text)) is not None:
            heappush(queue, (r, h, symbols[h] + text))
    return [s for s in symbols if s]


@dataclass(frozen=True, slots=True)
class MergeEncoder:
    """Text without special tokens -> ids. Safe to call from several threads."""

    ids: Mapping[str, int]
    rank: Rank
    cut: Callable[[str], list[str]]  # text into words, which never merge with each other
    spell: Callable[[str], str]  # a word in the vocabulary's alphabet
    whole: Callable[[str], bool]  # whether such a word, if it is a token, stays as it is
    spare: Callable[[str], list[int]]  # ids for a character that is no token
    cache: dict[str, list[int]] = field(default_factory=dict)

    def __call__(self, text: str) -> list[int]:
        """Ids of all of the text."""
        found: list[int] = []
        for word in self.cut(text):
            found += self.cache.get(word) or self._encode(word)
        return found

    def _encode(self, raw: str) -> list[int]:
        word, ids = self.spell(raw), self.ids
        if word in ids and self.whole(word):
            found = [ids[word]]
        else:
            found = [i for s in merge(list(word), self.rank) for i in ([ids[s]] if s in ids else self.spare(s))]
        if len(raw) <= _CACHED_LENGTH and len(found) <= _CACHED_IDS:
            if len(self.cache) >= _CACHED_WORDS:
                self.cache.clear()
            self.cache[raw] = found
        return found


def byte_level(vocabulary: Vocabulary, pre: PreTokenizer) -> MergeEncoder:
    """GPT-2's way (`tokenizer.ggml.model = gpt2`): words by regex, bytes as printable characters, merges by rank."""
    ids = _mergeable(vocabulary)
    return MergeEncoder(
        ids,
        by_merges(vocabulary.merges, ids, at_need=pre.ignore_merges),
        cut=_regex_words(pre.patterns),
        spell=lambda word: word.encode().decode("latin-1").translate(ALPHABET),
        whole=lambda _: pre.ignore_merges,
        spare=lambda _: [],  # a byte without a token is left out, as llama.cpp does (falcon has none for U+000B)
    )


def sentencepiece(vocabulary: Vocabulary) -> MergeEncoder:
    """SentencePiece's way: merges by score of the result (`llama`) or by rank (`gemma4`), `<0xAB>` for stray bytes."""
    ids, ranked = _mergeable(vocabulary), vocabulary.model == "gemma4"

    def spare(character: str) -> list[int]:
        found = (ids.get(f"<0x{byte:02X}>", vocabulary.unknown) for byte in character.encode())
        return [i for i in found if i is not None]

    return MergeEncoder(
        ids,
        by_merges(vocabulary.merges, ids, at_need=False) if ranked else _by_scores(vocabulary.scores, ids),
        cut=_space_words(vocabulary.tokens, lines_apart=ranked),
        spell=lambda word: word.replace(" ", SPACE),
        whole=lambda word: ranked and word[0] == "\n",
        spare=spare,
    )


def one_unknown(ids: list[int], unknown: int | None) -> list[int]:
    """Return the ids with each run of unknown tokens as one, which is how SentencePiece and transformers have it."""
    return [i for at, i in enumerate(ids) if i != unknown or at == 0 or ids[at - 1] != unknown]


def _mergeable(vocabulary: Vocabulary) -> dict[str, int]:
    """All tokens that text may become: control tokens are never spelled out by accident, or by an attacker."""
    ids = dict(vocabulary.ids)
    for i in vocabulary.of_type(CONTROL, UNKNOWN):
        ids.pop(vocabulary.tokens[i], None)
    return ids


def by_merges(merges: Iterable[str], ids: Mapping[str, int], *, at_need: bool) -> Rank:
    """Rank in a list of "left right". `at_need`: index it when first asked (whole words may be all a text needs)."""
    table: dict[str, int] | None = None

    def index() -> dict[str, int]:
        listed = list(merges)  # backwards, so that the first of equal entries counts
        return dict(zip(reversed(listed), range(len(listed) - 1, -1, -1), strict=True))

    def rank(left: str, right: str) -> float | None:
        nonlocal table
        if table is None:
            table = index()
        found = table.get(f"{left} {right}")
        return found if found is not None and left + right in ids else None

    table = None if at_need else index()
    return rank


def _by_scores(scores: NDArray[float64], ids: Mapping[str, int]) -> Rank:
    costs: list[float] = (-scores).tolist()

    def rank(left: str, right: str) -> float | None:
        i = ids.get(left + right)
        return None if i is None else costs[i]

    return rank


def _regex_words(patterns: Sequence[str]) -> Callable[[str], list[str]]:
    from tokenizers import Regex, pre_tokenizers  # 20 ms that SentencePiece vocabularies need not pay

    splits = [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
    split = pre_tokenizers.Sequence(splits).pre_tokenize_str
    return lambda text: [word for word, _ in split(text)]


def _space_words(tokens: Sequence[str], lines_apart: bool) -> Callable[[str], list[str]]:
    """Words start where spaces do, unless a token goes on past a space: then all of the text is one word."""
    runs_on = re.search(f"[^{SPACE}\0]{SPACE}", "\0".join(tokens)) is not None
    words = r"[^\n]+" if runs_on else r" *[^ \n]+| +"
    if lines_apart:
        return re.compile(rf"\n+|{words}").findall
    return (lambda text: [text]) if runs_on else re.compile(r" *[^ ]+| +").findall
