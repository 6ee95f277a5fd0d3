"""The parameters of every kernel: names, kinds and order, declared once for callers and kernels.

A caller names each argument (`Program.call`), and the signature checks it. A kernel reads `args.name`, which compiles
to one load (see `compile/jit.py`). This module imports neither numba nor the kernels.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

Argument = int | float


class Kind(Enum):
    """The kind of an argument. Each takes eight bytes; a float is passed as float64 and read as float32."""

    ADDRESS = "an address"  # 0: no memory
    INTEGER = "a count, a size in bytes or elements, or a switch"
    OFFSET = "a distance, negative or not"
    FLOAT = "a float"


ADDRESS, INTEGER, OFFSET, FLOAT = Kind
_LOWEST_ADDRESS, _LARGEST_INTEGER = 4096, 2**40


class Signature:
    """The parameters of a kernel, in order. Records of the signature `repeated` may follow the arguments."""

    def __init__(self, repeated: Signature | None = None, /, **parameters: Kind) -> None:
        self.parameters: Final = parameters
        self.repeated: Final = repeated
        self._indices = {name: i for i, name in enumerate(parameters)}

    def __or__(self, other: Signature) -> Signature:
        """A signature with the parameters of both, in order."""
        return Signature(**self.parameters, **other.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    def index(self, name: str) -> int:
        """The position of a parameter, in words of eight bytes."""
        return self._indices[name]

    def pack(
        self, kernel: str, arguments: Mapping[str, Argument], records: Sequence[Mapping[str, Argument]] = ()
    ) -> list[int]:
        """The arguments as int64 words.

        Raises TypeError for a missing or surplus argument, and for a value that is not of the parameter's kind.
        """
        words = self._words(kernel, arguments)
        for record in records:
            if self.repeated is None:
                raise TypeError(f"{kernel} takes no repeated records")
            words += self.repeated._words(kernel, record)
        return words

    def _words(self, kernel: str, arguments: Mapping[str, Argument]) -> list[int]:
        """Check and encode the arguments of one record."""
        if arguments.keys() != self.parameters.keys():
            missing = ", ".join(self.parameters.keys() - arguments.keys()) or "nothing"
            surplus = ", ".join(arguments.keys() - self.parameters.keys()) or "nothing"
            raise TypeError(f"{kernel}: missing: {missing}; surplus: {surplus}")
        for name, kind in self.parameters.items():
            if not _is(kind, arguments[name]):
                raise TypeError(f"{kernel}: {name} must be {kind.value}, not {arguments[name]!r}")
        return [_word(arguments[name]) for name in self.parameters]


def _is(kind: Kind, value: Argument) -> bool:
    """Whether a value is of a kind."""
    if kind is FLOAT:
        return type(value) is float
    if type(value) is not int:
        return False
    if kind is ADDRESS:
        return value == 0 or value >= _LOWEST_ADDRESS
    return kind is OFFSET or abs(value) < _LARGEST_INTEGER


def _word(value: Argument) -> int:
    """The int64 word of an argument."""
    return value if isinstance(value, int) else int(struct.unpack("<q", struct.pack("<d", value))[0])


#: Scratch memory: the address of the first thread's area, and bytes from one thread's area to the next.
_SCRATCH = Signature(scratch=ADDRESS, scratch_stride=INTEGER)

#: Rows of float32: `count` is the address of the number of rows (int64); leading dimensions (`ld...`) are in elements.
_ROWS = Signature(count=ADDRESS, x=ADDRESS, ldx=INTEGER)
_OUT = Signature(out=ADDRESS, ldo=INTEGER)

#: RMSNorm. `weight` 0: no weight.
_NORM = Signature(x=ADDRESS, ldx=INTEGER, n=INTEGER, weight=ADDRESS, eps=FLOAT) | _OUT
_GATED = _ROWS | Signature(n=INTEGER, offset=INTEGER) | _OUT
_STREAMS = Signature(count=ADDRESS, x=ADDRESS, ld=INTEGER, streams=INTEGER)

#: Heads of a layer and its cache; `cache` is the address of the layer's first block.
_HEADS = Signature(heads=INTEGER, kv_heads=INTEGER, head_dim=INTEGER)
_CACHE = Signature(cache=ADDRESS, block_bytes=INTEGER, head_bytes=INTEGER)

#: One matrix of a ternary product; `column` is the offset of its outputs from `out`, in elements.
SEGMENT = Signature(codes=ADDRESS, scales=ADDRESS, rows=INTEGER, superblocks=INTEGER, column=OFFSET)
_TERNARY = Signature(
    SEGMENT,
    count=ADDRESS, prepared=ADDRESS, prepared_stride=INTEGER, header=INTEGER, token_bytes=INTEGER, n=INTEGER,
    chunk=INTEGER, chunk_words=INTEGER, out=ADDRESS, ldo=INTEGER, add=INTEGER, sums=ADDRESS, sums_stride=INTEGER,
    matrices=INTEGER, scratch=ADDRESS, scratch_stride=INTEGER,
)  # fmt: skip

#: The 8-bit copy of the output matrix; `n` is the padded number of columns.
_SCREEN = Signature(
    count=ADDRESS, prepared=ADDRESS, prepared_stride=INTEGER, rows=INTEGER, n=INTEGER, codes=ADDRESS, steps=ADDRESS,
    errors=ADDRESS, norms=ADDRESS, logits=ADDRESS, ldl=INTEGER, block_bounds=ADDRESS, ldb=INTEGER, thresholds=ADDRESS,
    scale=FLOAT,
)  # fmt: skip

# fmt: off
_ATTENTION = (
    Signature(state=ADDRESS, q=ADDRESS, ldq=INTEGER) | _HEADS | Signature(scale=FLOAT, window=INTEGER)
    | _CACHE | _OUT | _SCRATCH
)  # fmt: skip

#: Signatures by the kernel's full name, by its name up to `-`, or by its module.
SIGNATURES: dict[str, Signature] = {
    "rows.norm": Signature(count=ADDRESS) | _NORM,
    "rows.norm_add": Signature(count=ADDRESS) | _NORM,
    "rows.norm_outputs": Signature(state=ADDRESS) | _NORM,
    "rows.bias": _ROWS | Signature(n=INTEGER, bias=ADDRESS),
    "rows.softcap": _ROWS | Signature(n=INTEGER, cap=FLOAT),
    **dict.fromkeys(("rows.silu", "rows.gelu", "rows.relu2"), _GATED),
    **dict.fromkeys(("mhc.spread", "mhc.mean"), _STREAMS),
    "mhc.read": _STREAMS | Signature(table=ADDRESS, out=ADDRESS),
    "mhc.write": _STREAMS | Signature(table=ADDRESS, y=ADDRESS) | _SCRATCH,
    **dict.fromkeys(("elements.erf", "elements.gelu", "elements.silu"), Signature(n=INTEGER, x=ADDRESS, out=ADDRESS)),
    "elements.softmax": Signature(rows=INTEGER, n=INTEGER, x=ADDRESS, out=ADDRESS),
    "elements.layer_norm": Signature(
        rows=INTEGER, n=INTEGER, x=ADDRESS, weight=ADDRESS, bias=ADDRESS, eps=FLOAT, out=ADDRESS
    ),
    "elements.bias": Signature(count=ADDRESS, n=INTEGER, x=ADDRESS, bias=ADDRESS),
    "embed": Signature(state=ADDRESS, weights=ADDRESS, row_bytes=INTEGER, n=INTEGER, scale=FLOAT) | _OUT,
    "embed-trits": Signature(state=ADDRESS, weights=ADDRESS, rows=INTEGER, n=INTEGER, scale=FLOAT)
    | _OUT
    | Signature(scales=ADDRESS, group=INTEGER)
    | _SCRATCH,
    "linear": _ROWS
    | Signature(weights=ADDRESS, row_bytes=INTEGER, rows=INTEGER, n=INTEGER, add=INTEGER)
    | _OUT
    | _SCRATCH
    | Signature(scale=FLOAT),
    "prepare": _ROWS
    | Signature(
        n=INTEGER,
        weight=ADDRESS,
        eps=FLOAT,
        out=ADDRESS,
        out_stride=INTEGER,
        header=INTEGER,
        token_bytes=INTEGER,
        chunk=INTEGER,
    )
    | _SCRATCH,
    "ternary_lut16": _TERNARY,
    "ternary_byte_dot": _TERNARY,
    "cache": Signature(state=ADDRESS, qkv=ADDRESS, ldq=INTEGER, cos=ADDRESS, sin=ADDRESS)
    | _HEADS
    | Signature(rope_dim=INTEGER, interleaved=INTEGER, q_norm=ADDRESS, k_norm=ADDRESS, eps=FLOAT)
    | _CACHE
    | _SCRATCH
    | _OUT,
    "attention": _ATTENTION,
    "attention_softcap": _ATTENTION | Signature(softcap=FLOAT),
    "pack": Signature(
        source=ADDRESS, rows=INTEGER, n=INTEGER, out=ADDRESS, superblocks=INTEGER, chunk=INTEGER, chunk_words=INTEGER
    )
    | _SCRATCH
    | Signature(status=ADDRESS, scales=ADDRESS, group=INTEGER),
    "check": Signature(codes=ADDRESS, superblocks=INTEGER, n=INTEGER, chunk=INTEGER)
    | _SCRATCH
    | Signature(status=ADDRESS),
    "lm_head_copy": Signature(
        weights=ADDRESS,
        row_bytes=INTEGER,
        rows=INTEGER,
        n=INTEGER,
        codes=ADDRESS,
        steps=ADDRESS,
        errors=ADDRESS,
        norms=ADDRESS,
    )
    | _SCRATCH
    | Signature(taken=ADDRESS),
    "lm_head_screen.prepare": _ROWS | Signature(n=INTEGER, out=ADDRESS, out_stride=INTEGER),
    "lm_head_screen.scan": _SCREEN,
    "lm_head_screen.select": Signature(
        count=ADDRESS, top_k=ADDRESS, block_bounds=ADDRESS, ldb=INTEGER, blocks=INTEGER, thresholds=ADDRESS
    )
    | _SCRATCH,
    "lm_head_screen.exact": _SCREEN
    | Signature(weights=ADDRESS, row_bytes=INTEGER, x=ADDRESS, ldx=INTEGER)
    | _SCRATCH
    | Signature(row_ids=ADDRESS, counts=ADDRESS),
    "lm_head_screen.gather": Signature(
        count=ADDRESS, rows=INTEGER, logits=ADDRESS, ldl=INTEGER, row_ids=ADDRESS, counts=ADDRESS
    ),
    "greedy.best": Signature(state=ADDRESS, logits=ADDRESS, ldl=INTEGER, n=INTEGER, best=ADDRESS, best_stride=INTEGER),
    "greedy.feed": Signature(state=ADDRESS, best=ADDRESS, best_stride=INTEGER),
    "ceiling": Signature(rounds=INTEGER, cells=ADDRESS),
    "ceiling.read": Signature(source=ADDRESS, nbytes=INTEGER, cells=ADDRESS),
    "ceiling.clock": Signature(cells=ADDRESS),
}
# fmt: on


def signature_of(kernel: str) -> Signature | None:
    """The signature of a kernel such as `rows.norm`, `linear.Q4_K` or `embed.TQ2_0-trits`; None if there is none."""
    module, _, entry = kernel.rpartition(".")
    base, _, variant = entry.partition("-")
    names = (kernel, f"{module}-{variant}", f"{module}.{base}", module)
    return next((SIGNATURES[name] for name in names if name in SIGNATURES), None)
