"""One decoder as a list of kernel calls, whatever the architecture: which tensors exist decides which calls there are.

Order and meaning of the operations: docs/models.md, and `tests/reference.py` in plain numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.config import EngineConfig, ModelConfig
from ternrun.runtime.cpu import layout, rope
from ternrun.runtime.cpu.linears import NO_NORM, Activations, Linears, Matrix, Norm, norm_rows
from ternrun.runtime.cpu.lm_head_screen import LMHeadScreen
from ternrun.runtime.cpu.memory import address, aligned, round_up
from ternrun.runtime.cpu.program.program import Program, Scratch
from ternrun.runtime.cpu.signatures import Argument

#: A kernel that looks up rows of the embedding table, and its arguments but for the state and the outputs.
Embedding = tuple[str, dict[str, Argument]]


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes fixed at load: tokens a step, positions a sequence, blocks of the cache and what it holds."""

    tokens: int
    positions: int
    blocks: int
    kv_type: str

    def head_bytes(self, dim: int) -> int:
        """Bytes of a block of one key/value head: keys, values (padded), steps."""
        elements = layout.KV_BLOCK * (dim + round_up(dim, 16))
        return layout.KV_SIZE[self.kv_type] * elements + 4 * layout.KV_STEPS[self.kv_type]


class Decoder:
    """Buffers of a model and the program that runs a step through them."""

    def __init__(
        self, config: ModelConfig, limits: Limits, linears: Linears, matrices: dict[str, Matrix],
        vectors: dict[str, NDArray[np.float32]], embedding: Embedding, scratch: Scratch,
    ) -> None:  # fmt: skip
        self.config, self._limits, self._linears, self._scratch = config, limits, linears, scratch
        self._matrices, self._vectors = matrices, vectors
        self.memory: list[NDArray[np.uint8]] = []
        self.state = self._buffer(layout.STATE_BYTES)
        self._state = address(self.state)
        self._count = self._state + layout.STATE["tokens"]
        self._make_buffers()
        self.angles = {
            local: rope.Tables(config.rope, limits.positions, local=local)
            for local in {False, bool(config.rope.local_base)}
        }
        self.head_name = "output.weight" if "output.weight" in matrices else "token_embd.weight"
        self.body = self._make_body(embedding)  # ends with hidden states
        self.head = self._make_head()  # from those to all logits

    # ---- memory ----

    def _buffer(self, nbytes: int) -> NDArray[np.uint8]:
        array = aligned(nbytes)
        self.memory.append(array)
        return array

    def _rows(self, cols: int, *, rows: int = 0) -> Activations:
        ld = round_up(cols, 16)
        return Activations(address(self._buffer(4 * ld * (rows or self._limits.tokens))), ld, cols)

    def _make_buffers(self) -> None:
        c, limits = self.config, self._limits
        padded = round_up(c.head_dim, 16)
        self._x = self._rows(c.dim, rows=limits.tokens * c.mhc_streams)
        self._branch = self._rows(c.dim)  # what a sublayer reads or returns, where that is not the residual itself
        self._qkv = self._rows((c.n_heads + 2 * c.n_kv_heads) * c.head_dim)
        self._q = self._rows(c.n_heads * padded)
        self._mixed = self._rows(c.n_heads * c.head_dim)
        self._up = self._rows(2 * round_up(c.ffn_dim, 16))
        self._hidden = self._rows(c.ffn_dim)
        self._normed = self._rows(max(c.dim, c.n_heads * c.head_dim, c.ffn_dim))  # what a projection's own norm reads
        self._final = self._rows(c.dim)
        self.hidden = self.memory[-1].view(np.float32)
        self._logits = self._rows(c.vocab_size)
        self.logits = self.memory[-1].view(np.float32)
        self._head_bytes = limits.head_bytes(c.head_dim)
        self._block_bytes = self._head_bytes * c.n_kv_heads
        self._layer_bytes = self._block_bytes * limits.blocks
        self.cache = self._buffer(self._layer_bytes * c.n_layers)

    @property
    def blocks(self) -> NDArray[np.uint8]:
        """The cache: (layers, blocks, bytes of a block)."""
        layers, blocks = self.config.n_layers, self._limits.blocks
        return self.cache[: self._layer_bytes * layers].reshape(layers, blocks, self._block_bytes)

    @property
    def logits_ld(self) -> int:
        """Floats from row to row of `logits`."""
        return self._logits.ld

    @property
    def hidden_ld(self) -> int:
        """Floats from row to row of `hidden`."""
        return self._final.ld

    # ---- program ----

    def _make_body(self, embedding: Embedding) -> Program:
        c, program = self.config, Program()
        kernel, args = embedding
        stride = self._x.ld * c.mhc_streams
        program.call(kernel, state=self._state, out=self._x.base, ldo=stride, **args)
        if c.mhc_streams > 1:
            program.call("mhc.spread", **self._streams())
        for layer in range(c.n_layers):
            self._sublayer(program, layer, "attn")
            self._sublayer(program, layer, "ffn")
        if c.mhc_streams > 1:
            program.call("mhc.mean", **self._streams())
        norm = self._norm("output_norm")
        program.call(
            "rows.norm_outputs", state=self._state, x=self._x.base, ldx=stride, n=c.dim, weight=norm.weight,
            eps=norm.eps, out=self._final.base, ldo=self._final.ld,
        )  # fmt: skip
        return program

    def _streams(self) -> dict[str, int]:
        return {"count": self._count, "x": self._x.base, "ld": self._x.ld, "streams": self.config.mhc_streams}

    def _make_head(self) -> Program:
        program = Program()
        count = self._state + layout.STATE["outputs"]
        self._linears.emit(program, count, self._final, NO_NORM, [(self._matrices[self.head_name], self._logits)])
        self._bias(program, "output", self._logits, count)
        self._softcap(program, count)
        return program

    def greedy_head(self, screen: LMHeadScreen | None) -> Program:
        """In place of `head`: logits for a step that asks to keep the largest, only those where there is a screen to
        tell them, and a way on from the very largest to the next step."""
        program = Program()
        if screen:
            screen.emit(program, self._state, self._final, self._logits)
            self._softcap(program, self._state + layout.STATE["outputs"])
            program.call("greedy.feed", state=self._state, **screen.best)
            return program
        best: dict[str, int] = {"best": address(self._buffer(8 * self._limits.tokens)), "best_stride": 8}
        program += self.head
        logits = self._logits
        program.call("greedy.best", state=self._state, logits=logits.base, ldl=logits.ld, n=logits.cols, **best)
        program.call("greedy.feed", state=self._state, **best)
        return program

    def _softcap(self, program: Program, count: int) -> None:
        if cap := self.config.logit_softcap:
            x = self._logits
            program.call("rows.softcap", count=count, x=x.base, ldx=x.ld, n=self.config.vocab_size, cap=cap)

    def _norm(self, name: str) -> Norm:
        """A norm by name, or no norm where the model has none."""
        vector = self._vectors.get(f"{name}.weight")
        return NO_NORM if vector is None else Norm(address(vector), self.config.norm_eps)

    def _bias(self, program: Program, name: str, out: Activations, count: int = 0) -> None:
        vector = self._vectors.get(f"{name}.bias")
        if vector is not None:
            program.call(
                "rows.bias", count=count or self._count, x=out.base, ldx=out.ld, n=out.cols, bias=address(vector)
            )

    def _sublayer(self, program: Program, layer: int, kind: str) -> None:
        """x += post_norm(f(norm(x))), or mHC's reading and writing of streams."""
        c, blk = self.config, f"blk.{layer}."
        post = self._norm(blk + {"attn": "post_attention_norm", "ffn": "post_ffw_norm"}[kind])
        run = self._attention if kind == "attn" else self._ffn
        norm = self._norm(f"{blk}{kind}_norm")
        if c.mhc_streams == 1 and post is NO_NORM:
            run(program, layer, self._x, norm, self._x, add=True)
            return
        if c.mhc_streams == 1:
            run(program, layer, self._x, norm, self._branch, add=False)
            program.call(
                "rows.norm_add", count=self._count, x=self._branch.base, ldx=self._branch.ld, n=c.dim,
                weight=post.weight, eps=post.eps, out=self._x.base, ldo=self._x.ld,
            )  # fmt: skip
            return
        table = address(self._vectors[f"{blk}mhc_{kind}.weight"])
        program.call("mhc.read", table=table, out=self._branch.base, **self._streams())
        run(program, layer, self._branch, norm, self._branch, add=False)
        program.call("mhc.write", table=table, y=self._branch.base, **self._streams(), **self._scratch.arguments)

    def _project(
        self, program: Program, x: Activations, norm: Norm, parts: list[tuple[str, Activations]], *, add: bool = False
    ) -> None:
        """Several projections of one input, each with its own input norm and bias where it has them."""
        plain = [
            (self._matrices[f"{name}.weight"], out)
            for name, out in parts
            if f"{name}_norm_in.weight" not in self._vectors
        ]
        if plain:
            self._linears.emit(program, self._count, x, norm, plain, add=add)
        for name, out in parts:
            inner = self._norm(f"{name}_norm_in")
            if inner is not NO_NORM:
                source = x
                if norm is not NO_NORM:
                    source = self._normed
                    norm_rows(program, self._count, x, norm, source)
                self._linears.emit(
                    program, self._count, source, inner, [(self._matrices[f"{name}.weight"], out)], add=add
                )
            self._bias(program, name, out)

    def _attention(
        self, program: Program, layer: int, x: Activations, norm: Norm, out: Activations, *, add: bool
    ) -> None:
        c, blk, limits, scratch = self.config, f"blk.{layer}.", self._limits, self._scratch
        q_cols, kv_cols = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
        qkv = self._qkv
        parts = [
            (blk + "attn_q", qkv.at(0, q_cols)),
            (blk + "attn_k", qkv.at(q_cols, kv_cols)),
            (blk + "attn_v", qkv.at(q_cols + kv_cols, kv_cols)),
        ]
        self._project(program, x, norm, parts)
        sliding = bool(c.sliding_layers and c.sliding_layers[layer])
        angles = self.angles[sliding and bool(c.rope.local_base)]
        shared: dict[str, int] = {
            "state": self._state, "heads": c.n_heads, "kv_heads": c.n_kv_heads, "head_dim": c.head_dim,
            "cache": address(self.cache) + self._layer_bytes * layer, "block_bytes": self._block_bytes,
            "head_bytes": self._head_bytes, **scratch.arguments,
        }  # fmt: skip
        program.call(
            f"cache.{limits.kv_type}", qkv=qkv.base, ldq=qkv.ld, cos=address(angles.cos), sin=address(angles.sin),
            rope_dim=c.rope.dim, interleaved=int(c.rope.style == "norm"),
            q_norm=self._norm(blk + "attn_q_norm").weight, k_norm=self._norm(blk + "attn_k_norm").weight,
            eps=c.norm_eps, out=self._q.base, ldo=self._q.ld, **shared,
        )  # fmt: skip
        program.call(
            f"attention.{limits.kv_type}", q=self._q.base, ldq=self._q.ld, scale=c.scale,
            window=c.sliding_window if sliding else 0, out=self._mixed.base, ldo=self._mixed.ld, **shared,
        )  # fmt: skip
        self._project(program, self._mixed, self._norm(blk + "attn_sub_norm"), [(blk + "attn_output", out)], add=add)

    def _ffn(self, program: Program, layer: int, x: Activations, norm: Norm, out: Activations, *, add: bool) -> None:
        c, blk = self.config, f"blk.{layer}."
        up = round_up(c.ffn_dim, 16)
        parts = [(blk + "ffn_gate", self._up.at(0, c.ffn_dim)), (blk + "ffn_up", self._up.at(up, c.ffn_dim))]
        self._project(program, x, norm, parts)
        hidden = self._hidden
        program.call(
            f"rows.{c.activation}", count=self._count, x=self._up.base, ldx=self._up.ld, n=c.ffn_dim, offset=up,
            out=hidden.base, ldo=hidden.ld,
        )  # fmt: skip
        self._project(program, hidden, self._norm(blk + "ffn_sub_norm"), [(blk + "ffn_down", out)], add=add)


def limits_for(config: ModelConfig, engine: EngineConfig) -> Limits:
    """Sizes from the settings: the context of the model, at most 8192 unless asked for, and room for one full
    context."""
    positions = min(engine.context or min(config.context_length, 8192), config.context_length)
    kv_tokens = max(engine.kv_tokens or positions, layout.KV_BLOCK)
    blocks = (kv_tokens + layout.KV_BLOCK - 1) // layout.KV_BLOCK
    tokens = engine.prefill_chunk + engine.max_batch
    return Limits(tokens, round_up(positions, layout.KV_BLOCK), blocks, engine.kv_type)
