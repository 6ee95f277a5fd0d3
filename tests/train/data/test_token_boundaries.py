"""Cuts inside tokens: what is shown and learned on both sides of them."""

from __future__ import annotations

import inspect
import textwrap

import numpy as np
import pytest
from tokenizers import Tokenizer

from ternrun.loader.default_model import located
from ternrun.train.data import tokenizer as tokenizers
from ternrun.train.data.augmentation import Augmentation
from ternrun.train.data.mixture import Mixture
from ternrun.train.data.repetition import IGNORE_INDEX
from ternrun.train.data.token_boundaries import MAX_CUTS, token_boundary_augment
from ternrun.train.data.windows import Windows

SOURCE = "".join(
    f"def name_{i}(first, second):\n    for item in first:\n        print(item, {i})\n    return second\n\n\n"
    for i in range(40)
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tokenizers.train_bpe([SOURCE], 400)


@pytest.fixture(scope="module")
def tokens(tokenizer: Tokenizer) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(tokenizer.encode(SOURCE).ids)


@pytest.mark.parametrize("seed", range(30))
def test_the_text_stays_and_only_what_it_says_is_learned(seed: int, tokenizer: Tokenizer, tokens: np.ndarray) -> None:  # type: ignore[type-arg]
    window = tokens[seed : seed + 121]
    ids, targets = token_boundary_augment(
        window, tokenizer, tokenizers.line_ends(tokenizer), np.random.default_rng(seed)
    )
    assert ids.shape == targets.shape == (120,)
    whole = tokenizer.decode(window.tolist())
    assert whole.startswith(tokenizer.decode(ids.tolist()))
    for i in np.flatnonzero(targets != IGNORE_INDEX):  # whatever is learned goes on with the very text
        assert whole.startswith(tokenizer.decode([*ids[: i + 1].tolist(), int(targets[i])]))


def test_no_cut_makes_a_window_shorter() -> None:
    tokenizer = tokenizers.load(located(None))
    tokens = np.array(tokenizer.encode(inspect.getsource(textwrap), add_special_tokens=False).ids)
    ends = tokenizers.line_ends(tokenizer)
    for seed in range(1000):
        window = tokens[seed : seed + 65]
        ids, targets = token_boundary_augment(window, tokenizer, ends, np.random.default_rng(seed))
        assert ids.shape == targets.shape == (64,)


def test_a_line_end_alone_learns_its_indentation(tokenizer: Tokenizer, tokens: np.ndarray) -> None:  # type: ignore[type-arg]
    alone, ends = tokenizer.encode("\n").ids, tokenizers.line_ends(tokenizer)
    learned = set()
    for seed in range(200):
        ids, targets = token_boundary_augment(tokens[:200], tokenizer, ends, np.random.default_rng(seed))
        learned |= {tokenizer.decode([t]) for t in targets[(ids == alone[0])] if t != IGNORE_INDEX}
    assert "   " in learned


def test_no_more_cuts_than_said(tokenizer: Tokenizer, tokens: np.ndarray) -> None:  # type: ignore[type-arg]
    ends, counts = tokenizers.line_ends(tokenizer), []
    for seed in range(100):
        ids, targets = token_boundary_augment(tokens[:513], tokenizer, ends, np.random.default_rng(seed))
        counts.append(int(((targets[:-1] != ids[1:]) & (targets[:-1] != IGNORE_INDEX)).sum()))
    assert MAX_CUTS // 2 < max(counts) <= MAX_CUTS


def test_no_cuts_across_documents(tokenizer: Tokenizer) -> None:
    end = tokenizer.token_to_id(tokenizers.END)
    window = np.array(([*tokenizer.encode("def").ids, end] * 40)[:41])
    ids, targets = token_boundary_augment(window, tokenizer, tokenizers.line_ends(tokenizer), np.random.default_rng(1))
    np.testing.assert_array_equal(ids, window[:-1])
    np.testing.assert_array_equal(targets, window[1:])


def test_samples_hang_on_seed_and_number_alone(tokenizer: Tokenizer, tokens: np.ndarray) -> None:  # type: ignore[type-arg]
    ends = tokenizers.line_ends(tokenizer)
    windows = Windows(tokens, 64, 1, Augmentation(token_boundaries=0.5, tokenizer=tokenizer, line_ends=ends))
    plain = Windows(tokens, 64, 1)
    first = Mixture(windows).batch(0, 16)
    for i in (7, 3, 15):
        np.testing.assert_array_equal(windows.example(i)[0], first[0][i])
    same = sum(np.array_equal(first[0][i], plain.example(i)[0]) for i in range(16))
    assert 2 < same < 14
