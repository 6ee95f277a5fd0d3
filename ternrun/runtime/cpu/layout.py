"""Where things lie in the memory that Python fills and kernels read: byte offsets, in one place for both sides."""

from __future__ import annotations

MAX_THREADS = 62

#: The team's block. Cells that threads write at once stand on cache lines of their own; `parked` has one line a worker:
#: its flag, then the last generation it ran.
THREAD_POOL = {
    "program": 0, "count": 8, "state": 16, "yield": 24, "profile": 32, "stop": 40,
    "arrived": 128, "passed": 256, "launches": 384, "parked": 512,
}  # fmt: skip
THREAD_POOL_BYTES = THREAD_POOL["parked"] + 64 * (MAX_THREADS + 1)

#: One call of a program: the kernel's address, the fewest tokens of a step that need a barrier after it, its arguments.
RECORD, RECORD_HEAD = 320, 2  # bytes; words before the arguments
RECORD_ARGS = RECORD // 8 - RECORD_HEAD

#: Tokens that the ternary kernels take at once, and the bytes of sums a thread keeps for them and some of its rows:
#: with the codes of two chunks of these rows they stay in L2.
TERNARY_TOKENS, TERNARY_SUMS = 32, 20 * 512 * 32

#: Ordinary products: the most tokens of a tile, rows that are decoded at once (fewer where they are long: the floats of
#: all), and bytes of a thread's scratch before them.
ORDINARY_TOKENS, ORDINARY_ROWS, ORDINARY_FLOATS = 6, 32, 1 << 16
ORDINARY_PARTIAL = 128 + 64 * ORDINARY_TOKENS * ORDINARY_ROWS

#: What changes from step to step: counts and the addresses of int32 arrays (see `backend.Batch`). `left` are the steps
#: still to come in this call, each of the last one's best tokens, unless one is among the `stops`; `told` is where the
#: next step's go (`kernels/greedy.py`).
STATE = {
    "tokens": 0, "outputs": 8, "ids": 16, "positions": 24, "slots": 32, "tables": 40, "table_stride": 48,
    "output_indices": 56, "top_k": 64, "steps_left": 72, "generated": 80, "stop_ids": 88, "n_stop_ids": 96,
}  # fmt: skip
STATE_BYTES = 104

#: Tokens of one KV block: one f32x16 of scores. Bytes of a cached element by type, and how many float32 steps follow
#: the elements of each head of a block.
KV_BLOCK = 16
KV_SIZE = {"f32": 4, "f16": 2, "int8": 1}
KV_STEPS = {"f32": 0, "f16": 0, "int8": 2 * KV_BLOCK}

#: Screening of the head (`kernels/screen.py`): bytes before a prepared row, the most logits it may be asked to keep,
#: and the bytes of a row's counts: of all that were kept (int64), the id of the largest, then of those of each thread.
SCREEN_HEADER = 64
SCREEN_MAX_TOP_K = 1024
SCREEN_COUNTS = 8 * (MAX_THREADS + 2)
