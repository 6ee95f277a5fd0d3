from __future__ import annotations

from collections import Counter

import numpy as np

from ternrun.train.data.mixture import Mixture
from ternrun.train.data.windows import Windows

TIMES = 1000


def files() -> list[Windows]:
    """Three files whose tokens tell them apart."""
    return [Windows(np.arange(n, dtype=np.uint16) + 10_000 * i, 10, seed=3) for i, n in enumerate((4001, 401, 901))]


def mixture() -> Mixture:
    first, second, third = files()
    return Mixture(first, [(second, 0.1), (third, 0.25)])


def test_each_file_gives_its_share_evenly() -> None:
    sources = np.array([mixture().batch(i, 1)[0][0, 0] // 10_000 for i in range(TIMES)])
    assert Counter(sources.tolist()) == {0: 650, 1: 100, 2: 250}
    for start in range(0, TIMES, 100):
        assert (sources[start : start + 100] == 1).sum() == 10
        assert abs((sources[start : start + 100] == 2).sum() - 25) <= 1


def test_each_file_gives_its_windows_in_its_own_order() -> None:
    made = np.concatenate([mixture().batch(i, 4)[0] for i in range(0, TIMES, 4)])
    for i, windows in enumerate(files()):
        mine = made[made[:, 0] // 10_000 == i]
        np.testing.assert_array_equal(mine, [windows.example(n)[0] for n in range(len(mine))])


def test_samples_hang_on_their_number_alone() -> None:
    whole = mixture().batch(0, 64)
    for first, count in ((17, 1), (60, 4), (3, 20)):
        for part, of_whole in zip(mixture().batch(first, count), whole, strict=True):
            np.testing.assert_array_equal(part, of_whole[first : first + count])


def test_a_single_file_is_itself() -> None:
    first = files()[0]
    np.testing.assert_array_equal(Mixture(first).batch(5, 3)[1], [first.example(n)[1] for n in (5, 6, 7)])
