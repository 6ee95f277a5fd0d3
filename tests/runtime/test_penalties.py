"""DRY against a plain version of its definition, with sequence breakers, and its cost."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ternrun.loader.tokenizers.sequence_breakers import SequenceBreakers
from ternrun.runtime.config import SamplingParams
from ternrun.runtime.sampling.filters import all_of, top_k
from ternrun.runtime.sampling.penalties import END, NO_BREAKERS, Breakers, continued, dried, penalized
from ternrun.runtime.sampling.sampler import sample

often = settings(max_examples=300, deadline=None, derandomize=True)


def breakers(texts: list[tuple[int, ...]], vocab: int) -> Breakers:
    single, heads, tails = np.zeros(vocab, np.bool_), dict[int, int](), dict[int, Any]()
    for index, (first, *rest) in enumerate(texts):
        if not rest:
            single[first] = True
            continue
        node = tails
        for token in rest:
            node = node.setdefault(token, {})
        node[END] = node.get(END, 0) | 1 << index
        heads[first] = heads.get(first, 0) | 1 << index
    return Breakers(single, heads, tails)


def naive(history: list[int], allowed: int, last: int, texts: list[tuple[int, ...]]) -> dict[int, int]:
    """For every earlier place: how far back it is the same as the end of the text, no further than the last breaker."""
    window = history if last < 0 else history[len(history) - min(last, len(history)) :]
    if len(window) <= allowed:
        return {}
    reach = len(window)
    for start in range(len(window) - 1, -1, -1):  # the breaker that begins last, and the longest that begins there
        found = [t for t in texts if tuple(window[start : start + len(t)]) == t]
        if found:
            reach = len(window) - start - max(map(len, found))
            break
    lengths: dict[int, int] = {}
    for end in range(1, len(window)):
        n = 0
        while n < min(end, reach) and window[end - 1 - n] == window[len(window) - 1 - n]:
            n += 1
        token = window[end]
        if n >= allowed and (token,) not in texts:
            lengths[token] = max(lengths.get(token, 0), n)
    return lengths


@often
@given(
    history=st.lists(st.integers(0, 3), max_size=40)
    | st.builds(lambda unit, n: unit * n, st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(1, 12)),
    allowed=st.integers(0, 4),
    last=st.sampled_from([-1, 1, 7, 30]),
    texts=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple), max_size=3),
)
def test_repetitions_are_those_of_the_definition(
    history: list[int], allowed: int, last: int, texts: list[tuple[int, ...]]
) -> None:
    params = SamplingParams(dry_multiplier=1, dry_allowed_length=allowed, dry_penalty_last_n=last)
    assert continued(history, params, breakers(texts, 4)) == naive(history, allowed, last, texts)


def test_the_penalty_grows_with_the_repetition() -> None:
    x = np.zeros(6, np.float32)
    params = SamplingParams(dry_multiplier=0.5, dry_base=2, dry_allowed_length=2)
    history = [1, 2, 3, 4, 0, 2, 3, 5, 1, 2, 3]  # 4 followed 1 2 3, 5 followed 2 3
    got = dried(all_of(x), history, params, NO_BREAKERS).logits
    assert got.tolist() == [0, 0, 0, 0, -0.5 * 2, -0.5]
    assert sample(np.array([0, 0, 0, 0, 1, 0.9], np.float32), params, history, 0) == 5
    assert sample(np.array([0, 0, 0, 0, 1, 0.9], np.float32), SamplingParams(), history, 0) == 4


@pytest.mark.parametrize("base", [1.0, 1.0000005, 1.75, 99.0])
def test_no_repetition_is_long_enough_to_overflow(base: float) -> None:
    x = np.array([1.0, 0.0], np.float32)
    params = SamplingParams(temperature=1, dry_multiplier=10_000, dry_base=base)
    got = dried(all_of(x), [0] * 3000, params, NO_BREAKERS).logits
    assert math.isfinite(got[0])
    assert sample(x, params, [0] * 3000, 0) == 1


@pytest.mark.parametrize("off", [{"dry_multiplier": 0}, {"dry_base": 0.5}, {"dry_penalty_last_n": 0}])
def test_dry_is_off(off: dict[str, Any]) -> None:
    params = SamplingParams(**({"dry_multiplier": 9} | off))
    assert sample(np.array([1.0, 0.0], np.float32), params, [0] * 30, 0) == 0


def test_penalties_find_what_filters_have_left() -> None:
    c = top_k(all_of(np.array([1.0, 5.0, 3.0, 4.0], np.float32)), 3)  # 1, 3, 2
    params = SamplingParams(presence_penalty=1, frequency_penalty=0.5, dry_multiplier=2)
    assert penalized(c, [0, 3, 3, 2], params).logits.tolist() == [5, 2, 1.5]
    assert dried(c, [1, 0, 1, 2, 3, 0, 1], params, NO_BREAKERS).logits.tolist() == [5, 4, 1]


@pytest.mark.parametrize("unit", [[1], [1, 2], [1, 1, 2], list(range(50))])
@pytest.mark.parametrize("tails", [[], [(1, 2, 1, 2, 1, 9), (1, 1, 1, 1, 1, 9)]])
def test_the_time_is_linear_in_the_history(unit: list[int], tails: list[tuple[int, ...]]) -> None:
    params, broken = SamplingParams(dry_multiplier=1, dry_base=1.0), breakers(tails, 60)

    def seconds(n: int) -> float:
        history, times = (unit * n)[:n], []
        for _ in range(7):
            start = time.thread_time()
            continued(history, params, broken)
            times.append(time.thread_time() - start)
        return min(times)

    assert seconds(60_000) < 60 * seconds(4000)  # 15 times, were it not for the caches; 225 times, were it quadratic
    assert seconds(8000) < 0.2


class Words:
    """As much of a tokenizer as breakers need: the longest word first."""

    def __init__(self, *words: str) -> None:
        self.words, self.vocab_size = words, len(words)

    def token_bytes(self, token: int) -> bytes:
        return self.words[token].encode()

    def encode(self, text: str, *, special: bool, bos: bool) -> list[int]:
        assert (special, bos) == (False, False)
        found = []
        while text:
            best = max((w for w in self.words if text.startswith(w)), key=len)
            found.append(self.words.index(best))
            text = text[len(best) :]
        return found


def test_breakers_are_found_in_tokens_and_across_them() -> None:
    words = Words("a", "b", "\n", "a\nb", "xa", "ba", "é")
    found = SequenceBreakers(words)(("\n", "ab"))  # type: ignore[arg-type]
    assert np.flatnonzero(found.single).tolist() == [2, 3]
    assert (found.heads, found.tails) == (dict.fromkeys((0, 4, 5), 1), {1: {END: 1}})  # a, xa and ba begin "ab"
    assert found.reach([0, 1, 0, 5, 2]) == 1  # ... a b | a
    assert found.reach([0, 0, 5, 3]) == 3
    assert found.reach([6, 6]) == 2
    assert not found.holds(99)


def test_a_breaker_of_several_bytes_may_be_split_inside_a_character() -> None:
    class Bytes(Words):
        def token_bytes(self, token: int) -> bytes:
            return bytes([token])

        def encode(self, text: str, *, special: bool, bos: bool) -> list[int]:
            return list(text.encode())

    found = SequenceBreakers(Bytes(*map(str, range(256))))(("é!",))  # type: ignore[arg-type]
    assert found.reach([5, *reversed("é!".encode()), 7]) == 1


def test_hostile_breakers_take_bounded_time() -> None:
    class Letters(Words):
        def encode(self, text: str, *, special: bool, bos: bool) -> list[int]:
            return [ord(c) - ord("a") for c in text]

    letters = "abcdefghij"
    find = SequenceBreakers(Letters(*letters, *[x + y + "a" for x in letters for y in letters] * 100))  # type: ignore[arg-type]
    find(("c",))
    start = time.process_time()
    found = find(tuple("a" * k + "b" * (1000 - k) for k in range(1, 65)))
    assert time.process_time() - start < 4  # all tokens but the letters begin all the texts
    assert len(found.heads) > 10_000
    start = time.process_time()
    found.reach([0] * 4000)
    assert time.process_time() - start < 1


def test_what_is_known_of_a_vocabulary_is_looked_up_once() -> None:
    words = Words("a", "b")
    find = SequenceBreakers(words)  # type: ignore[arg-type]
    assert find(("a",)) is find(("a",))
    assert find(()) == NO_BREAKERS._replace(single=find(()).single)
