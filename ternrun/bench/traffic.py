"""What a work must read and compute at the least: bytes and operations a token, the two axes of a roofline."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from ternrun.bench.works import DECODED, Work
from ternrun.runtime.cpu.layout import KV_BLOCK, KV_SIZE, kv_steps
from ternrun.runtime.cpu.model import CpuModel
from ternrun.runtime.cpu.weights.matrix import TernaryMatrix

SCREEN_PLANES = 2  # an input of the screening copy has two halves of eight bits
COARSE = 4  # from so many outputs a step on, the first half will do


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one token, on average: bytes read, and operations (2 x multiply-adds) by the instruction that does them."""

    bytes: float
    operations: dict[str, float]

    def share_of_compute(self, tokens_per_s: float, ceilings: dict[str, float]) -> float:
        """Share of the time that these operations would take at the instructions' ceilings."""
        return tokens_per_s * sum(n / ceilings[name] for name, n in self.operations.items())


def of(model: CpuModel, work: Work, ternary: str) -> Traffic:
    """`ternary` is the instruction that ternary products rest on.

    Weights are read once a step (the head only where logits are wanted), keys and values of all earlier tokens once a
    token; activations stay in caches and are not counted.
    """
    steps, outputs, rows, positions = _steps(model, work)  # for `rows` tokens
    head = model.matrices[model.head_name]
    body = [m for name, m in model.matrices.items() if name != model.head_name]
    seen = sum(m.read_bytes for m in body) * steps
    seen += (model.screen or head).read_bytes * (steps if outputs == rows else 1)
    operations: dict[str, float] = {}
    for m in body:
        name = ternary if isinstance(m, TernaryMatrix) else "floats"
        operations[name] = operations.get(name, 0.0) + 2.0 * m.rows * m.cols
    kind = ternary if isinstance(head, TernaryMatrix) else "dot" if model.screen else "floats"
    planes = SCREEN_PLANES if model.screen and outputs < COARSE * steps else 1
    operations[kind] = operations.get(kind, 0.0) + 2.0 * planes * head.rows * head.cols * outputs / rows
    return Traffic(seen / rows + kv_bytes(model) * positions, operations)


def kv_bytes(model: CpuModel) -> int:
    """Bytes of keys and values of one position, in all layers."""
    c, kind = model.config, model.engine_config.kv_type
    return c.n_layers * c.n_kv_heads * (2 * c.head_dim * KV_SIZE[kind] + 4 * kv_steps(kind, c.head_dim) // KV_BLOCK)


def _steps(model: CpuModel, work: Work) -> tuple[int, int, int, float]:
    """Steps, outputs and tokens of a run, and earlier positions whose keys and values a token reads, on average.

    A chunk of a prompt reads them once for all its tokens.
    """
    n = work.number
    if work.kind == "pp":
        chunks = ceil(n / model.engine_config.prefill_chunk)
        return chunks, 1, n, (chunks + 1) / 2
    if work.kind == "batch":
        return DECODED, n * DECODED, n * DECODED, DECODED / 2
    if work.kind == "ctx":
        return DECODED, DECODED, DECODED, n - DECODED / 2
    return n, n, n, n / 2


def kernel(model: CpuModel) -> str:
    """The kernels that do most of a step: ternary products, and the head."""
    name = model.description.partition(",")[0]
    main = [
        k
        for k in dict.fromkeys(model.programs["largest"].names)
        if k.startswith(("ternary", "linear", "lm_head_screen.scan"))
    ]
    return f"{name}: {' + '.join(main)}"
