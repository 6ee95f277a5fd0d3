"""GGUF files of real models' shapes with random weights, for measuring speed without a download.

    python -m ternrun.bench.synthetic 2b4t model.gguf --type i2_s --head f16 --vocab full

Rows of a projection repeat after some four million weights, which no kernel notices; rows of the head are all
different, since a head full of ties would mislead whatever screens it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.bench.vocabulary import byte_vocabulary, full_vocabulary
from ternrun.errors import TernrunError, UsageError
from ternrun.loader.architectures.table import ARCHITECTURES
from ternrun.loader.architectures.tensor_names import is_linear, shapes
from ternrun.loader.architectures.write_config import write_config
from ternrun.loader.gguf.write import write_gguf
from ternrun.loader.quants.table import encode, encode_trits
from ternrun.runtime.config import ModelConfig, RopeConfig
from ternrun.runtime.encodings import ENCODINGS, nbytes

U8 = NDArray[np.uint8]
_POOL = 1 << 22  # weights made before rows repeat


def _shape(architecture: str, vocab: int, context: int, dim: int, layers: int, heads: int, kv: int, ffn: int,
           base: float) -> ModelConfig:  # fmt: skip
    row = ARCHITECTURES[architecture]
    return ModelConfig(
        architecture=architecture, vocab_size=vocab, context_length=context, dim=dim, n_layers=layers, n_heads=heads,
        n_kv_heads=kv, head_dim=dim // heads, ffn_dim=ffn, norm_eps=1e-5, activation=row.activation,
        rope=RopeConfig(dim=dim // heads, base=base, style=row.rope_style),
    )  # fmt: skip


# name -> shape, and whether the head is a matrix of its own
SHAPES: dict[str, tuple[ModelConfig, bool]] = {
    "nano-125m": (_shape("llama", 50257, 2048, 768, 12, 12, 12, 2048, 1e4), False),
    "2b4t": (_shape("bitnet-b1.58", 128256, 4096, 2560, 30, 20, 5, 6912, 5e5), False),
    "8b": (_shape("llama", 128256, 8192, 4096, 32, 32, 8, 14336, 5e5), True),
}
HEAD_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q6_K")
VOCABULARIES = {"bytes": byte_vocabulary, "full": full_vocabulary}


@dataclass(frozen=True, slots=True)
class _Made:
    """A tensor whose bytes are made when the writer asks for them."""

    name: str
    type: str
    shape: tuple[int, ...]
    make: Callable[[], U8]

    @property
    def data(self) -> U8:
        return self.make()


def check_types(type_name: str, head: str) -> None:
    """Raises UsageError unless these are types of projections and a head."""
    if type_name not in ENCODINGS or head not in HEAD_TYPES:
        raise UsageError(f"{type_name} and {head} are not types of projections and a head ({', '.join(HEAD_TYPES)})")


def write_synthetic(
    path: str | Path, shape: str | ModelConfig, type_name: str = "I2_S", *, head: str = "F16", vocab: str = "bytes",
    architecture: str = "", seed: int = 0,
) -> Path:  # fmt: skip
    """Write a model of one of SHAPES (or any configuration), projections in a ternary encoding, head in HEAD_TYPES.

    `architecture` replaces the shape's own (llama.cpp knows `bitnet`, not `bitnet-b1.58`). Raises UsageError.
    """
    config, own_head = _find(shape)
    if architecture:
        row = ARCHITECTURES[architecture]
        config = replace(config, architecture=architecture, activation=row.activation,
                         rope=replace(config.rope, style=row.rope_style))  # fmt: skip
    check_types(type_name, head)
    rng = np.random.default_rng(seed)
    maker = _Maker(type_name, rng)
    tensors = [
        _Made(name, *maker.plan(name, shape, head))
        for name, shape in shapes(config, ARCHITECTURES[config.architecture].required, head=own_head).items()
    ]
    metadata = write_config(config) | {"general.name": f"synthetic {shape if isinstance(shape, str) else ''}".strip()}
    write_gguf(path, metadata | VOCABULARIES[vocab](config.vocab_size), tensors)
    return Path(path)


def _find(shape: str | ModelConfig) -> tuple[ModelConfig, bool]:
    if isinstance(shape, ModelConfig):
        return shape, False
    if shape not in SHAPES:
        raise UsageError(f"{shape!r} is not a shape; these are: {', '.join(SHAPES)}")
    return SHAPES[shape]


class _Maker:
    """Random tensors of one file."""

    def __init__(self, type_name: str, rng: np.random.Generator) -> None:
        self.type = type_name
        self.rng = rng
        self.pools: dict[int, U8] = {}  # columns -> packed rows

    def plan(self, name: str, shape: tuple[int, ...], head: str) -> tuple[str, tuple[int, ...], Callable[[], U8]]:
        """Type, shape and maker of one tensor."""
        if is_linear(name):
            return self.type, shape, lambda: self._linear(shape)
        if len(shape) == 2:
            return head, shape, lambda: random_floats(head, shape, self.rng)
        return "F32", shape, lambda: encode("F32", self.rng.uniform(0.8, 1.2, shape).astype(np.float32))

    def _linear(self, shape: tuple[int, ...]) -> U8:
        rows, cols = shape
        if cols not in self.pools:
            self.pools[cols] = self._pool(cols)
        pool, tail = self.pools[cols], ENCODINGS[self.type].tensor_bytes
        size = (nbytes(self.type, shape) or 0) - tail
        body = pool[: len(pool) - tail]
        start = size // rows * 4 * int(self.rng.integers(64))  # matrices differ, and groups of four rows stay whole
        repeated = np.resize(np.roll(body, -start), size)
        return np.concatenate([repeated, pool[len(pool) - tail :]])

    def _pool(self, cols: int) -> U8:
        rows = max(512, _POOL // cols // 512 * 512)
        codes = self.rng.integers(-1, 2, (rows, cols), np.int8)
        scale = np.full((1, 1), np.float16(1.2 / np.sqrt(cols)), np.float32)
        if ENCODINGS[self.type].kind == "ternary":
            return encode_trits(self.type, codes, scale)
        return encode(self.type, codes * scale)


def random_floats(type_name: str, shape: tuple[int, int] | tuple[int, ...], rng: np.random.Generator) -> U8:
    """A (rows, cols) matrix of sizes from 2**-7 to 2**-5 (or so, for quantized types), made from random bits."""
    size = nbytes(type_name, shape)
    if size is None:
        raise UsageError(f"a head of shape {list(shape)} cannot be of type {type_name}")
    bits = rng.integers(0, 1 << 64, -(-size // 8), np.uint64, endpoint=False).view(np.uint8)[:size]
    if type_name in _FLOAT_MASKS:
        dtype, keep, put = _FLOAT_MASKS[type_name]
        words = bits.view(dtype)
        words &= keep
        words |= put
        return bits
    blocks = bits.reshape(-1, ENCODINGS[type_name].block_bytes)
    if type_name == "Q8_0":
        blocks[:, :2] = np.float16(2.7e-4).reshape(1).view(np.uint8)
    else:
        blocks[:, 192:208] = blocks[:, 192:208] & 31 | 32  # 16 block scales of 32 to 63
        blocks[:, 208:] = np.float16(2.2e-5).reshape(1).view(np.uint8)
    return bits


# sign, mantissa and the lowest bit of the exponent are random, the rest of it is set
_FLOAT_MASKS: dict[str, tuple[Any, Any, Any]] = {
    "F32": (np.uint32, np.uint32(0x80FFFFFF), np.uint32(0x3C000000)),
    "F16": (np.uint16, np.uint16(0x87FF), np.uint16(0x2000)),
    "BF16": (np.uint16, np.uint16(0x80FF), np.uint16(0x3C00)),
}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ternrun.bench.synthetic", description=__doc__.split("\n")[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("path", type=Path)
    parser.add_argument("--type", default="i2_s", help="encoding of the projections (default: %(default)s)")
    parser.add_argument("--head", default="f16", help="type of embedding and head (default: %(default)s)")
    parser.add_argument("--vocab", default="bytes", choices=VOCABULARIES, help="default: %(default)s")
    parser.add_argument("--arch", default="", choices=["", *ARCHITECTURES], help="default: the shape's own")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    args = parser.parse_args(argv)
    try:
        write_synthetic(args.path, args.shape, args.type.upper(), head=args.head.upper(), vocab=args.vocab,
                        architecture=args.arch, seed=args.seed)  # fmt: skip
    except (TernrunError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
