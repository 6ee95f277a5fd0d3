"""y = W x for ternary weights by table lookup (AVX-512): three weights index the 27 possible sums of their inputs.

A 16-bit word holds three indices. One vpermw looks up 32 rows, and a shift brings up the next index. int16 sums cannot
overflow for a chunk of at most 258 inputs. Then they widen: to int32 if a row has one scale (`rows`), or to float32
times the chunk's scale if every block has its own (`blocks`). All sums are exact. Each output is float32(sum) * scale,
times the token's step, whatever the tile or the thread. `pack.py` stores codes as [chunk][superblock of 128
rows][word][4][32 rows].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types

from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.compile.jit import compiled, record, share
from ternrun.runtime.cpu.compile.lanes import splat, zero
from ternrun.runtime.cpu.compile.memory_access import load_scalar
from ternrun.runtime.cpu.compile.vectors import f32x16, i16x32
from ternrun.runtime.cpu.kernels.ternary_sums import blocks_flush, blocks_values, emit, rows_flush, rows_values
from ternrun.runtime.cpu.kernels.ternary_tables import TILE, build_tables, fetch_inputs, tile_width
from ternrun.runtime.cpu.kernels.ternary_tiles import tile1, tile2, tile4_of_few, tile4_of_many

SUPERBLOCK = 128  # rows: four vectors of 32
BATCH = layout.TERNARY_TOKENS


def _make_superblock(flush: Any) -> Any:
    """The function for 128 rows, with the given way to accumulate chunks."""

    @compiled
    def flush4(acc: int, sums: Any, scales: int, fresh: bool) -> None:
        """Add 128 rows of int16 sums to the accumulator (512 bytes, like the rows' scales)."""
        flush(acc, sums[0], scales, fresh)
        flush(acc + 128, sums[1], scales + 128, fresh)
        flush(acc + 256, sums[2], scales + 256, fresh)
        flush(acc + 384, sums[3], scales + 384, fresh)

    @compiled
    def superblock(
        codes: int, tables: int, words: int, width: int, acc: int, ld: int, scales: int, fresh: bool,
        ahead: int, step: int,
    ) -> None:  # fmt: skip
        """Compute 128 rows of one chunk for a tile of `width` tokens."""
        z = zero(i16x32)
        row = (z, z, z, z)
        if width == 1:
            flush4(acc, tile1(codes, tables, words, (row,), 0, 0)[0], scales, fresh)
            return
        if width == 2:
            a, b = tile2(codes, tables, words, (row, row), 0, 0)
            flush4(acc, a, scales, fresh)
            flush4(acc + ld, b, scales, fresh)
            return
        if step > 64:
            a, b, c, d = tile4_of_few(codes, tables, words, (row, row, row, row), ahead, step)
        else:
            a, b, c, d = tile4_of_many(codes, tables, words, (row, row, row, row), ahead, step)
        flush4(acc, a, scales, fresh)
        flush4(acc + ld, b, scales, fresh)
        flush4(acc + 2 * ld, c, scales, fresh)
        flush4(acc + 3 * ld, d, scales, fresh)

    return superblock


@compiled
def _words_from(start: int, n: int, words: int) -> Any:
    """Words of the chunk that begins at input `start`: `words`, or fewer in the last chunk."""
    return min(words, (n - start + 8) // 9)


def _make_multiply(superblock: Any, by_block: bool) -> Any:
    """The function that multiplies superblocks of one matrix."""

    @compiled
    def multiply(
        args: Any, segment: Any, first: int, last: int, q: int, tokens: int, acc: int, ld: int, tables: int, then: int
    ) -> None:
        """Add superblocks first..last of one matrix times up to BATCH tokens to acc[token][row of this part].

        `then` is the address of the codes that are read after these; they are prefetched.
        """
        stride, n, chunk, words = args.token_bytes, args.n, args.chunk, args.chunk_words
        codes, scales, blocks = segment.codes, segment.scales, segment.superblocks
        tiles = (tokens + TILE - 1) // TILE
        for start in range(0, n, chunk):
            count = _words_from(start, n, words)
            following = codes + 256 * count * blocks
            after = _words_from(start + chunk, n, words)
            ahead = following + 256 * after * first
            if start + chunk >= n:
                after, ahead = _words_from(0, n, words), then
            step = 256 * after // (count * tiles)
            for tile in range(tiles):
                t = TILE * tile
                width, left = tile_width(tokens - t), min(TILE, tokens - t)
                build_tables(q + stride * t, stride, 3 * count, tables, left, width)
                if tile + 1 < tiles:
                    fetch_inputs(q + stride * (t + TILE), stride, 12 * count, min(TILE, tokens - t - TILE))
                elif tokens > 1:
                    fetch_inputs(q + 12 * words, stride, 12 * words, min(TILE, tokens))
                for s in range(first, last):
                    here = acc + ld * t + 512 * (s - first)
                    superblock(
                        codes + 256 * count * s, tables, count, width, here, ld, scales + 512 * s, start == 0,
                        ahead + 256 * after * (s - first) + step * count * tile, step,
                    )  # fmt: skip
            codes, q = following, q + 12 * words
            if by_block:
                scales += 512 * blocks

    return multiply


def _make_finish(values_of: Any) -> Any:
    """The function that turns sums into outputs."""

    @compiled
    def finish(
        args: Any, segment: Any, first: int, last: int, steps: int, begin: int, tokens: int, acc: int, ld: int
    ) -> None:
        """Store the outputs of the same part, for `tokens` tokens from `begin` on."""
        ldo, add = 4 * args.ldo, args.add
        out, scales, rows = args.out + ldo * begin, segment.scales, segment.rows
        for t in range(tokens):
            step = splat(f32x16, load_scalar(types.float32, steps + 4 * (begin + t)))
            for row in range(SUPERBLOCK * first, min(rows, SUPERBLOCK * last), 32):
                low, high = values_of(acc + ld * t + 4 * (row - SUPERBLOCK * first), scales + 4 * row)
                to = out + ldo * t + 4 * (segment.column + row)
                emit(low * step, to, rows - row, add)
                emit(high * step, to + 64, rows - row - 16, add)

    return finish


def _make_part(multiply: Any, finish: Any) -> Any:
    """The function for one thread's part of a matrix."""

    @compiled
    def part(args: Any, segment: Any, low: int, high: int, tid: int, tokens: int, prepared: int) -> None:
        """Compute superblocks low..high of one matrix for all tokens, as many at a time as the sums have room for."""
        acc, tables = args.sums + args.sums_stride * tid, args.scratch + args.scratch_stride * tid
        some = layout.TERNARY_SUMS // (512 * ((min(BATCH, tokens) + TILE - 1) // TILE * TILE))
        begin = 256 * _words_from(0, args.n, args.chunk_words)  # bytes of a superblock's first chunk
        for s in range(low, high, some):
            end = min(s + some, high)
            for t in range(0, tokens, BATCH):
                count, q = min(BATCH, tokens - t), prepared + args.header + args.token_bytes * t
                then = segment.codes + begin * (s if t + BATCH < tokens else end)
                multiply(args, segment, s, end, q, count, acc, 512 * some, tables, then)
                finish(args, segment, s, end, prepared, t, count, acc, 512 * some)

    return part


def build(entry: str) -> Callable[..., Any]:
    """Entries: rows, blocks."""
    flush, values_of = {"rows": (rows_flush, rows_values), "blocks": (blocks_flush, blocks_values)}[entry]
    part = _make_part(_make_multiply(_make_superblock(flush), entry == "blocks"), _make_finish(values_of))

    @compiled
    def ternary(args: Any, tid: int, nt: int) -> int:
        """Compute up to three matrices that read the same input; threads share the superblocks of all of them."""
        tokens, prepared = load_scalar(types.int64, args.count), args.prepared
        if tokens == 1:
            prepared += args.prepared_stride * tid
        total = 0
        for m in range(args.matrices):
            total += record(args, m).superblocks
        first, last = share(total, tid, nt)
        before = 0
        for m in range(args.matrices):
            segment = record(args, m)
            part(args, segment, max(first - before, 0), min(last - before, segment.superblocks), tid, tokens, prepared)
            before += segment.superblocks
        return 0

    return ternary
