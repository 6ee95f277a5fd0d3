"""Special tokens as the definition finds them; no vocabulary or text makes that, or cutting words, quadratic."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from ternrun.loader.tokenizers.bpe import _regex_words
from ternrun.loader.tokenizers.pretokenizers import PRETOKENIZERS
from ternrun.loader.tokenizers.special_tokens import SpecialTokens


def by_definition(ids: Mapping[str, int], text: str) -> Iterator[str | int]:
    done = at = 0
    while at < len(text):
        token = max((t for t in ids if text.startswith(t, at)), key=len, default=None)
        if token is None:
            at += 1
            continue
        yield from filter(None, [text[done:at]])
        yield ids[token]
        done = at = at + len(token)
    yield from filter(None, [text[done:]])


def test_the_leftmost_and_of_these_the_longest() -> None:
    rng = random.Random(3)
    for _ in range(1000):
        words = ("".join(rng.choices("ab<|]^-\\", k=rng.randrange(1, 5))) for _ in range(rng.randrange(8)))
        ids = {word: i for i, word in enumerate(words)}
        for _ in range(3):
            text = "".join(rng.choices("ab<|]^-\\c", k=rng.randrange(25)))
            assert list(SpecialTokens(ids).split(text)) == list(by_definition(ids, text)), (ids, text)


class Counted(dict[str, int]):
    """How often somebody goes through all of it."""

    passes = 0

    def __iter__(self) -> Iterator[str]:
        self.passes += 1
        return super().__iter__()


def test_a_vocabulary_of_many_beginnings_is_read_once() -> None:
    ids = Counted({f"{chr(0x4E00 + i)}{chr(0x3400 + i)}x": i for i in range(4000)})
    tokens = SpecialTokens(ids)
    assert ids.passes == 1
    assert list(tokens.split(f"a{chr(0x4E07)}{chr(0x3407)}xb")) == ["a", 7, "b"]


def test_spaces_at_the_end_are_looked_for_where_they_begin() -> None:
    """From each space of a long run anew, that would take a time quadratic in the run."""
    rows = [pattern for row in PRETOKENIZERS.values() for pattern in row.patterns]
    assert not [pattern for pattern in rows if pattern.startswith(r"\s+$")]
    guarded = PRETOKENIZERS["deepseek-llm"].patterns
    plain = tuple(pattern.removeprefix(r"(?<!\s)") for pattern in guarded)
    assert plain != guarded
    cut, cut_plainly = _regex_words(guarded), _regex_words(plain)
    rng = random.Random(1)
    for _ in range(1000):
        text = "".join(rng.choices(["  ", " ", "\t", "1", "a", "!", "\n", "あ", "\u3000", "\x0b"], k=rng.randrange(12)))
        assert cut(text) == cut_plainly(text), text


def test_tokens_swallow_the_spaces_beside_them_where_they_are_said_to() -> None:
    ids = {"<l>": 1, "<r>": 2, "<b>": 3, "<n>": 4}
    tokens = SpecialTokens(ids, {1: (True, False), 2: (False, True), 3: (True, True)})
    text = "a  <l>  b <r> \u00a0c\u2003<b>\n<n> "
    assert list(tokens.split(text)) == ["a", 1, "  b ", 2, "c", 3, 4, " "]
    assert list(tokens.split(" <l><r> ")) == [1, 2]
