"""A decoder's plan as a list of kernel calls, and the buffers that they work in.

`runtime/decoder_plan.py` says what is computed; `tests/reference.py` computes it in plain numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ternrun.runtime.config import ModelConfig
from ternrun.runtime.cpu import layout
from ternrun.runtime.cpu.linears import NO_NORM, Activations, Linears, Matrix, Norm, norm_rows
from ternrun.runtime.cpu.lm_head_screen import LMHeadScreen
from ternrun.runtime.cpu.memory import address, aligned, round_up
from ternrun.runtime.cpu.program.program import Program, Scratch
from ternrun.runtime.cpu.signatures import Argument
from ternrun.runtime.decoder_plan import Attention, DecoderPlan, FeedForward, Projection, Sublayer
from ternrun.runtime.limits import Limits
from ternrun.runtime.rope import RopeTable

#: A kernel that looks up rows of the embedding table, and its arguments but for the state and the outputs.
Embedding = tuple[str, dict[str, Argument]]


class Decoder:
    """Buffers of a model and the programs that run a step through them."""

    def __init__(
        self, config: ModelConfig, plan: DecoderPlan, limits: Limits, linears: Linears, matrices: dict[str, Matrix],
        vectors: dict[str, NDArray[np.float32]], embedding: Embedding, scratch: Scratch,
    ) -> None:  # fmt: skip
        self.config, self._limits, self._linears, self._scratch = config, limits, linears, scratch
        self._plan, self._matrices, self._vectors = plan, matrices, vectors
        self.memory: list[NDArray[np.uint8]] = []
        self.state = self._buffer(layout.STATE_BYTES)
        self._state = address(self.state)
        self._count = self._state + layout.STATE["tokens"]
        self._make_buffers()
        self.rope_tables = {
            name: RopeTable(config.rope, limits.positions, local=name == "local", allocate=_floats)
            for name in plan.rope_tables
        }
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
        if c.wide_qk_norm:
            self._wide = self._rows(2 * round_up(c.n_heads * c.head_dim, 16))
        self._mixed = self._rows(c.n_heads * c.head_dim)
        self._up = self._rows(2 * round_up(c.ffn_dim, 16))
        self._hidden = self._rows(c.ffn_dim)
        self._normed = self._rows(max(c.dim, c.n_heads * c.head_dim, c.ffn_dim))  # what a projection's own norm reads
        self._final = self._rows(c.dim)
        self.hidden = self.memory[-1].view(np.float32)
        self._logits = self._rows(c.vocab_size)
        self.logits = self.memory[-1].view(np.float32)
        self._head_bytes = layout.kv_head_bytes(limits.kv_type, c.head_dim)
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
        for layer, sublayer in enumerate(self._plan.sublayers):
            self._sublayer(program, layer // 2, sublayer)
        if c.mhc_streams > 1:
            program.call("mhc.mean", **self._streams())
        norm = self._norm(self._plan.final_norm)
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
        head = self._plan.head
        self._linears.emit(program, count, self._final, NO_NORM, [(self._matrices[head.weight], self._logits)])
        self._bias(program, head.bias, self._logits, count)
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

    def _norm(self, name: str | None) -> Norm:
        return Norm(address(self._vectors[name]), self.config.norm_eps) if name else NO_NORM

    def _bias(self, program: Program, name: str | None, out: Activations, count: int = 0) -> None:
        if name:
            bias = address(self._vectors[name])
            program.call("rows.bias", count=count or self._count, x=out.base, ldx=out.ld, n=out.cols, bias=bias)

    def _sublayer(self, program: Program, layer: int, sublayer: Sublayer) -> None:
        """x += post_norm(body(norm(x))), or mHC's reading and writing of streams."""
        norm, post = self._norm(sublayer.norm), self._norm(sublayer.post_norm)
        if sublayer.mhc_table:
            table = address(self._vectors[sublayer.mhc_table])
            program.call("mhc.read", table=table, out=self._branch.base, **self._streams())
            self._run(program, layer, sublayer.body, self._branch, norm, self._branch, add=False)
            program.call("mhc.write", table=table, y=self._branch.base, **self._streams(), **self._scratch.arguments)
        elif post is NO_NORM:
            self._run(program, layer, sublayer.body, self._x, norm, self._x, add=True)
        else:
            self._run(program, layer, sublayer.body, self._x, norm, self._branch, add=False)
            program.call(
                "rows.norm_add", count=self._count, x=self._branch.base, ldx=self._branch.ld, n=self.config.dim,
                weight=post.weight, eps=post.eps, out=self._x.base, ldo=self._x.ld,
            )  # fmt: skip

    def _run(
        self, program: Program, layer: int, body: Attention | FeedForward, x: Activations, norm: Norm,
        out: Activations, *, add: bool,
    ) -> None:  # fmt: skip
        if isinstance(body, Attention):
            self._attention(program, layer, body, x, norm)
            self._project(program, self._mixed, self._norm(body.sub_norm), [(body.output, out)], add=add)
        else:
            self._feed_forward(program, body, x, norm)
            self._project(program, self._hidden, self._norm(body.sub_norm), [(body.down, out)], add=add)

    def _project(
        self, program: Program, x: Activations, norm: Norm, parts: list[tuple[Projection, Activations]], *,
        add: bool = False,
    ) -> None:  # fmt: skip
        """Several projections of one input, each with its own input norm and bias where it has them."""
        plain = [(self._matrices[p.weight], out) for p, out in parts if not p.input_norm]
        if plain:
            self._linears.emit(program, self._count, x, norm, plain, add=add)
        for projection, out in parts:
            if projection.input_norm:
                source = x
                if norm is not NO_NORM:
                    source = self._normed
                    norm_rows(program, self._count, x, norm, source)
                matrix = self._matrices[projection.weight]
                inner = self._norm(projection.input_norm)
                self._linears.emit(program, self._count, source, inner, [(matrix, out)], add=add)
            self._bias(program, projection.bias, out)

    def _attention(self, program: Program, layer: int, body: Attention, x: Activations, norm: Norm) -> None:
        c, limits, scratch, qkv = self.config, self._limits, self._scratch, self._qkv
        if body.wide_norm:
            self._project_wide(program, body, x, norm)
        else:
            q, k, v = self._qkv_parts()
            self._project(program, x, norm, [(body.q, q), (body.k, k), (body.v, v)])
        head_norms = (None, None) if body.wide_norm else (body.q_norm, body.k_norm)
        shared: dict[str, int] = {
            "state": self._state, "heads": c.n_heads, "kv_heads": c.n_kv_heads, "head_dim": c.head_dim,
            "cache": address(self.cache) + self._layer_bytes * layer, "block_bytes": self._block_bytes,
            "head_bytes": self._head_bytes, **scratch.arguments,
        }  # fmt: skip
        table = self.rope_tables[body.rope] if body.rope else None
        program.call(
            f"cache.{limits.kv_type}", qkv=qkv.base, ldq=qkv.ld, cos=address(table.cos) if table else 0,
            sin=address(table.sin) if table else 0, rope_dim=c.rope.dim if table else 0,
            interleaved=int(c.rope.style == "norm"), q_norm=self._norm(head_norms[0]).weight,
            k_norm=self._norm(head_norms[1]).weight, eps=c.norm_eps, out=self._q.base, ldo=self._q.ld, **shared,
        )  # fmt: skip
        softcap = {"softcap": c.attention_softcap} if c.attention_softcap else {}
        program.call(
            f"attention{'_softcap' if softcap else ''}.{limits.kv_type}", q=self._q.base, ldq=self._q.ld,
            scale=c.scale, window=body.window, out=self._mixed.base, ldo=self._mixed.ld, **softcap, **shared,
        )  # fmt: skip

    def _project_wide(self, program: Program, body: Attention, x: Activations, norm: Norm) -> None:
        """q, k and v with norms over all of q and over all of k.

        A norm reads rows that end in zeros up to a whole vector, and writes whole vectors: into k's place before k is
        there, and into v's before v is.
        """
        q, k, v = self._qkv_parts()
        wide_q, wide_k = self._wide.at(0, q.cols), self._wide.at(round_up(q.cols, 16), k.cols)
        self._project(program, x, norm, [(body.q, wide_q), (body.k, wide_k)])
        norm_rows(program, self._count, wide_q, self._norm(body.q_norm), q)
        norm_rows(program, self._count, wide_k, self._norm(body.k_norm), k)
        self._project(program, x, norm, [(body.v, v)])

    def _qkv_parts(self) -> tuple[Activations, Activations, Activations]:
        q_cols, kv_cols = self.config.n_heads * self.config.head_dim, self.config.n_kv_heads * self.config.head_dim
        return self._qkv.at(0, q_cols), self._qkv.at(q_cols, kv_cols), self._qkv.at(q_cols + kv_cols, kv_cols)

    def _feed_forward(self, program: Program, body: FeedForward, x: Activations, norm: Norm) -> None:
        c, up, hidden = self.config, round_up(self.config.ffn_dim, 16), self._hidden
        self._project(program, x, norm, [(body.gate, self._up.at(0, c.ffn_dim)), (body.up, self._up.at(up, c.ffn_dim))])
        program.call(
            f"rows.{body.activation}", count=self._count, x=self._up.base, ldx=self._up.ld, n=c.ffn_dim, offset=up,
            out=hidden.base, ldo=hidden.ld,
        )  # fmt: skip


def _floats(size: int) -> NDArray[np.float32]:
    return aligned(4 * size).view(np.float32)
