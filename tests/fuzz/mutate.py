"""Seeded damage to the bytes of any file: what a bad disk, a broken download or an enemy would do to it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

# where counts, lengths and sizes go wrong
EDGES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 36, 42, 100, 255, 256, 999, 2**16, 2**20, 2**21, 2**31 - 1, 2**31,
         2**32 - 1, 2**32, 2**40, 2**48, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1]  # fmt: skip


def mutate(data: bytes, rng: Random, numbers: Sequence[tuple[int, int]] = ()) -> bytes:
    """Change `data` in one to four places. `numbers`: (position, width) of the little-endian integers in it."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        # numbers are hit most often: the rest of a file seldom decides anything
        change = rng.choice((_lie, _lie, _lie, _flip, _fill, _cut, _grow, _copy, _delete))
        change(out, rng, numbers)
    return bytes(out)


def _lie(out: bytearray, rng: Random, numbers: Sequence[tuple[int, int]]) -> None:
    if not numbers:
        numbers = [(rng.randrange(len(out) + 1), rng.choice((1, 2, 4, 8)))]
    at, width = rng.choice(numbers)
    if at + width > len(out):
        return
    now = int.from_bytes(out[at : at + width], "little")
    near = (now + rng.choice((-1, 1, -8, 8, 32)), now * 2, now // 2, now ^ 1 << rng.randrange(8 * width))
    value = rng.choice((*near, *rng.choices(EDGES, k=4)))
    out[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")


def _flip(out: bytearray, rng: Random, _: Sequence[tuple[int, int]]) -> None:
    for _ in range(rng.choice((1, 1, 8))):
        if out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)


def _run(out: bytearray, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(out) + 1)
    return start, min(len(out), start + rng.choice((1, 4, 8, 64, 512)))


def _fill(out: bytearray, rng: Random, _: Sequence[tuple[int, int]]) -> None:
    start, end = _run(out, rng)
    out[start:end] = rng.choice((bytes(end - start), b"\xff" * (end - start), rng.randbytes(end - start)))


def _cut(out: bytearray, rng: Random, _: Sequence[tuple[int, int]]) -> None:
    del out[rng.randrange(len(out) + 1) :]


def _grow(out: bytearray, rng: Random, _: Sequence[tuple[int, int]]) -> None:
    at = rng.choice((len(out), rng.randrange(len(out) + 1)))
    out[at:at] = rng.randbytes(rng.choice((1, 8, 32, 256)))


def _copy(out: bytearray, rng: Random, _: Sequence[tuple[int, int]]) -> None:
    start, end = _run(out, rng)
    at = rng.randrange(len(out) + 1)
    out[at:at] = out[start:end]


def _delete(out: bytearray, rng: Random, _: Sequence[tuple[int, int]]) -> None:
    start, end = _run(out, rng)
    del out[start:end]
