"""Windows turned for filling in: each text on its own, ended where its middle ends."""

from __future__ import annotations

import numpy as np
import pytest

from ternrun.errors import LoadError
from ternrun.train.data import tokenizer as tokenizers
from ternrun.train.data.augmentation import Augmentation
from ternrun.train.data.fim import fill_in_middle
from ternrun.train.data.repetition import IGNORE_INDEX
from ternrun.train.data.windows import Windows

IDS = PREFIX, SUFFIX, MIDDLE, END = (1, 2, 3, 0)
Ids = np.ndarray[tuple[int], np.dtype[np.int64]]


def texts(*sizes: int) -> Ids:
    """Texts of so many tokens, each token different, each text ended."""
    first = 10
    parts = []
    for size in sizes:
        parts += [np.arange(first, first + size), [END]]
        first += size
    return np.concatenate(parts)


def untwisted(turned: Ids) -> Ids:
    """The text that was turned, without its end."""
    assert (turned[0], turned[-1]) == (PREFIX, END)
    assert [int((turned == mark).sum()) for mark in IDS] == [1, 1, 1, 1]
    suffix, middle = (int(np.flatnonzero(turned == mark)[0]) for mark in (SUFFIX, MIDDLE))
    return np.concatenate((turned[1:suffix], turned[middle + 1 : -1], turned[suffix + 1 : middle]))


@pytest.mark.parametrize("seed", range(20))
def test_texts_are_turned_one_by_one_and_end(seed: int) -> None:
    window = texts(20, 3, 30, 40)[5:80]  # begins and ends inside a text; one is too short to turn
    made = fill_in_middle(window, IDS, np.random.default_rng(seed))
    assert made.shape == window.shape
    ends = np.flatnonzero(made == END) + 1
    first, short, second, third = np.split(made, ends)[:4]
    np.testing.assert_array_equal(untwisted(first), window[:15])
    np.testing.assert_array_equal(short, window[16:20])
    np.testing.assert_array_equal(untwisted(second), window[20:50])
    np.testing.assert_array_equal(untwisted(third), window[51 : 51 + len(third) - 4])
    assert ends[3] == len(made)


@pytest.mark.parametrize("size", [1, 4, 11, 12, 13, 50])
def test_one_text_keeps_the_window_s_length(size: int) -> None:
    window = np.arange(10, 10 + size)
    made = fill_in_middle(window, IDS, np.random.default_rng(0))
    np.testing.assert_array_equal(untwisted(made) if size >= 12 else made, window[: size - 4] if size >= 12 else window)


def test_windows_are_turned_as_often_as_asked_and_nothing_else_is_done_to_them() -> None:
    tokens = texts(*[30] * 300)
    ends = np.arange(10, 10_000, 7)
    made = Windows(tokens, 50, 1, Augmentation(fim=0.5, fim_ids=IDS, repetition=1.0, line_ends=ends))
    without = Windows(tokens, 50, 1, Augmentation(repetition=1.0, line_ends=ends))
    turned = 0
    for i in range(200):
        ids, targets = made.example(i)
        if PREFIX in ids:
            turned += 1
            np.testing.assert_array_equal(ids[1:], targets[:-1])
            assert IGNORE_INDEX not in targets
        else:
            np.testing.assert_array_equal(ids, without.example(i)[0])
    assert 70 < turned < 130
    with pytest.raises(LoadError, match="needs a tokenizer with fill-in-the-middle tokens"):
        Augmentation(fim=0.5)


def test_a_tokenizer_of_our_own_has_the_marks() -> None:
    made = tokenizers.train_bpe(["some text"], 300)
    names = (*tokenizers.FIM, tokenizers.END)
    assert tokenizers.fim_ids(made) == tuple(made.token_to_id(name) for name in names)
    assert tokenizers.fim_ids(tokenizers.char_level(["some text"])) is None
