"""Repeated lines: what is repeated, what is learned of it, and that a run's samples hang on seed and number alone."""

from __future__ import annotations

import numpy as np
import pytest

from ternrun.train.data import tokenizer as tokenizers
from ternrun.train.data.augmentation import Augmentation
from ternrun.train.data.mixture import Mixture
from ternrun.train.data.repetition import IGNORE_INDEX, MAX_LINES, MAX_REPEATS, repetition_augment
from ternrun.train.data.windows import Windows

ENDS = np.array([1, 2])


def lines(seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Forty tokens, all different but for the line ends among them."""
    rng = np.random.default_rng(seed)
    text = rng.permutation(np.arange(10, 50))
    text[rng.choice(40, 8, replace=False)] = rng.integers(1, 3, 8)
    return text


@pytest.mark.parametrize("seed", range(40))
def test_what_follows_repeats_is_learned_and_they_are_not(seed: int) -> None:
    window = lines(seed)
    ids, targets = repetition_augment(window, ENDS, np.random.default_rng(seed))
    assert ids.shape == targets.shape == (39,)
    learned = targets != IGNORE_INDEX
    np.testing.assert_array_equal(
        targets[learned][:-1] if learned.all() else targets[learned], window[1:][: learned.sum()]
    )
    text = np.append(ids, targets[-1])
    skipped = np.flatnonzero(~learned) + 1  # places of the repeats in the text
    assert skipped.size
    np.testing.assert_array_equal(skipped, np.arange(skipped[0], skipped[0] + skipped.size))  # on end
    end = skipped[0]
    np.testing.assert_array_equal(text[:end], window[:end])
    size = next(n for n in range(1, end + 1) if window[end - n] in ENDS and _repeats(text, end, n, skipped.size))
    assert skipped.size <= MAX_REPEATS * size
    assert np.isin(window[end - size : end], ENDS).sum() <= MAX_LINES


def _repeats(text: np.ndarray[tuple[int], np.dtype[np.int64]], end: int, n: int, skipped: int) -> bool:
    reach = text[end - n : end + skipped]
    shown = reach[n:]
    shown = shown[: len(shown) if shown[-1] != IGNORE_INDEX else -1]
    return bool((shown == reach[: len(shown)]).all())


@pytest.mark.parametrize("window", [np.arange(10, 30), np.array([5, 1, *range(10, 28)])])
def test_a_window_without_whole_lines_stays_as_it_is(window: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    ids, targets = repetition_augment(window, ENDS, np.random.default_rng(0))
    np.testing.assert_array_equal(ids, window[:-1])
    np.testing.assert_array_equal(targets, window[1:])


def test_samples_hang_on_seed_and_number_alone() -> None:
    tokens = np.concatenate([lines(seed) for seed in range(20)])
    always, never, half = (
        Windows(tokens, 32, 1, Augmentation(repetition=share, line_ends=ENDS)) for share in (1.0, 0.0, 0.5)
    )
    first = Mixture(half).batch(0, 16)
    for i in (7, 3, 15):
        np.testing.assert_array_equal(half.example(i)[0], first[0][i])
    changed = (first[1] == IGNORE_INDEX).any(1)
    assert 2 < changed.sum() < 14
    for i in range(16):
        np.testing.assert_array_equal(first[0][i], (always if changed[i] else never).example(i)[0])


def test_line_ends_are_the_tokens_that_begin_with_one() -> None:
    tokenizer = tokenizers.train_bpe(["def f(x):\n    return x\n\n\ndef g():\n    return 1\n" * 9], 300)
    ends = tokenizers.line_ends(tokenizer)
    assert len(ends) > 1
    assert {tokenizer.decode([i])[:1] for i in ends} == {"\n"}
    others = set(range(tokenizer.get_vocab_size())) - set(ends.tolist())
    assert not any(tokenizer.decode([i], skip_special_tokens=False).startswith("\n") for i in others)
