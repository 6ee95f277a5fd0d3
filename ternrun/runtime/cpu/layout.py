"""Byte offsets and sizes in the memory that Python fills and kernels read, defined once for both."""

from __future__ import annotations

MAX_THREADS = 62

#: Cells of the thread pool (int64). Cells that several threads write have a cache line each. `parked` has one line for
#: each worker: a flag, then the number of the last launch that the worker ran.
THREAD_POOL = {
    "program": 0, "count": 8, "state": 16, "yield": 24, "profile": 32, "stop": 40,
    "arrived": 128, "passed": 256, "launches": 384, "parked": 512,
}  # fmt: skip
THREAD_POOL_BYTES = THREAD_POOL["parked"] + 64 * (MAX_THREADS + 1)

#: One call of a program: the kernel's address, the least number of tokens that needs a barrier after it, its arguments.
RECORD, RECORD_HEAD = 320, 2  # bytes of a record; words before the arguments
RECORD_ARGS = RECORD // 8 - RECORD_HEAD

#: Tokens of one pass of the ternary kernels, and bytes of a thread's sums for those tokens and some of its rows. The
#: sums and the codes of two chunks of these rows fit in L2.
TERNARY_TOKENS, TERNARY_SUMS = 32, 20 * 512 * 32

#: Ordinary products: tokens of the largest tile, rows decoded at a time, floats of all those rows (long rows: fewer
#: rows), and bytes of a thread's scratch before the decoded rows.
ORDINARY_TOKENS, ORDINARY_ROWS, ORDINARY_FLOATS = 6, 32, 1 << 16
ORDINARY_PARTIAL = 128 + 64 * ORDINARY_TOKENS * ORDINARY_ROWS

#: The step state: counts, and addresses of int32 arrays (see `backend.Batch`). `steps_left` counts the greedy steps
#: that remain in this call, which ends early at a token among the `stop_ids`; `generated` is where the next step's
#: tokens are stored (see `kernels/greedy.py`).
STATE = {
    "tokens": 0, "outputs": 8, "ids": 16, "positions": 24, "slots": 32, "tables": 40, "table_stride": 48,
    "output_indices": 56, "top_k": 64, "steps_left": 72, "generated": 80, "stop_ids": 88, "n_stop_ids": 96,
}  # fmt: skip
STATE_BYTES = 104

#: Tokens that the kernels of one product take together: more cost more.
TILE_TOKENS = 4

#: Tokens of a KV block (one f32x16 of scores), bytes of a cached element by type, and the number of float32 steps after
#: the elements of each head of a block.
KV_BLOCK = 16
KV_SIZE = {"f32": 4, "f16": 2, "int8": 1}

#: Elements of an int8 key that share a float32 step. A value has one step.
KEY_GROUP = 16


def kv_steps(kv_type: str, head_dim: int) -> int:
    """The number of float32 steps that follow the elements of one head of a block."""
    return KV_BLOCK * (-(-head_dim // KEY_GROUP) + 1) if kv_type == "int8" else 0


def kv_head_bytes(kv_type: str, head_dim: int) -> int:
    """Bytes of a block of one key/value head: keys, values (padded to 16 elements), steps."""
    elements = KV_BLOCK * (head_dim + (head_dim + 15) // 16 * 16)
    return KV_SIZE[kv_type] * elements + 4 * kv_steps(kv_type, head_dim)


#: LM head screening (`kernels/lm_head_screen.py`): bytes before a prepared row, the largest top_k, and bytes of a row's
#: counts (int64): the number of logits found, the id of the largest, then the number found by each thread.
SCREEN_HEADER = 64
SCREEN_MAX_TOP_K = 1024
SCREEN_COUNTS = 8 * (MAX_THREADS + 2)
