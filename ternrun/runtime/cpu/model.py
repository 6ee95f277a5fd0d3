"""A model on this CPU: weights packed, kernels loaded, workers waiting. Implements `backend.Model`."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.runtime.backend.protocol import Batch, Idle, LogitsRows, ProgressCallback
from ternrun.runtime.config import EngineConfig
from ternrun.runtime.cpu import autotune, layout
from ternrun.runtime.cpu.compile import isa as instruction_sets
from ternrun.runtime.cpu.compile.host import usable_cpus
from ternrun.runtime.cpu.compile.kernel_cache import CompileProgress, KernelCache
from ternrun.runtime.cpu.decoder import Decoder, Embedding
from ternrun.runtime.cpu.linears import Linears, Matrix, is_ternary, ordinary_scratch
from ternrun.runtime.cpu.lm_head_screen import LMHeadScreen, can_screen
from ternrun.runtime.cpu.memory import address, collapse_huge_pages, padded_vector
from ternrun.runtime.cpu.program.program import Program, Scratch
from ternrun.runtime.cpu.program.step_inputs import StepInputs
from ternrun.runtime.cpu.program.thread_pool import KERNELS, ThreadPool
from ternrun.runtime.cpu.weights.matrix import OrdinaryMatrix, TernaryMatrix
from ternrun.runtime.cpu.weights.repack import Packing
from ternrun.runtime.cpu.weights.scales import block_scales
from ternrun.runtime.decoder_plan import fold_scales, plan_decoder
from ternrun.runtime.encodings import ENCODINGS
from ternrun.runtime.limits import limits_for
from ternrun.runtime.weights import Tensor, Weights

SETTLED = 16  # answers after which a model is thought to be here to stay


def default_threads() -> int:
    """Physical cores this process may run on."""
    usable = usable_cpus()
    try:
        smt = Path("/sys/devices/system/cpu/smt/active").read_text().strip() == "1"
    except OSError:
        smt = False
    return max(1, min(usable // 2 if smt else usable, layout.MAX_THREADS))


class HostCacheBlocks:
    """Access to a cache in host memory; `data` is (layers, blocks, bytes of a block). See `backend.CacheBlocks`."""

    def __init__(self, kind: str, data: NDArray[np.uint8]) -> None:
        self.kind, self._data = kind, data
        self.layers, _, self.block_bytes = data.shape

    def read(self, layer: int, blocks: NDArray[np.int32]) -> NDArray[np.uint8]:
        """A copy of blocks of one layer."""
        copy: NDArray[np.uint8] = self._data[layer].take(blocks, axis=0)
        return copy

    def write(self, layer: int, blocks: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        """Replace blocks of one layer."""
        self._data[layer, blocks] = data


class CpuModel:
    """Loaded weights with their cache; see `backend.Model`."""

    draft_tokens = layout.TILE_TOKENS - 1  # with the token before them, guesses fill one tile

    def __init__(
        self, weights: Weights, engine: EngineConfig, *, isa: str = "", progress: ProgressCallback | None = None,
        idle: Idle | None = None,
    ) -> None:  # fmt: skip
        self.config, self.engine_config = weights.config, engine
        ternary = any(map(is_ternary, weights.tensors.values()))
        tally = CompileProgress(progress)
        chosen = autotune.select_isa(isa, tally) if ternary else instruction_sets.select_isa(isa)
        threads = engine.threads or default_threads()
        self.description = f"cpu/{chosen.name}, {threads} threads: {chosen.reason}{_told(weights, chosen.layout)}"
        self._kernels = KernelCache(chosen, tally)
        limits = limits_for(self.config, engine, layout.KV_BLOCK)
        self.block_size, self.n_blocks, self.positions = layout.KV_BLOCK, limits.blocks, limits.positions
        tensors = fold_scales(weights)
        self._tensors = tensors  # keeps the file's map alive
        widest = max(max(t.shape[-1] for t in tensors.values()), limits.positions, self.config.head_dim)
        self._scratch = Scratch(threads, max(32 * (widest + 1024) + 8192, ordinary_scratch(widest)))
        packing = Packing()
        self.matrices, self._vectors = _laid_out(tensors, chosen.layout, packing, self._scratch)
        self._linears = Linears(chosen.layout, threads, limits.tokens, self._scratch, self.matrices)
        embedding = self._embedding(tensors["token_embd.weight"])
        plan = plan_decoder(self.config, tensors)
        self._decoder = Decoder(
            self.config, plan, limits, self._linears, self.matrices, self._vectors, embedding, self._scratch
        )
        self.head_name = plan.head.weight
        self.cache_blocks = HostCacheBlocks(f"{engine.kv_type} {chosen.name}", self._decoder.blocks)
        self.screen = self._screened_with(chosen, limits.tokens)
        self._copying: Packing | None = None  # what remains to be done for the screen
        if self.screen:
            self._copying = Packing()
            self.screen.emit_copy(self._copying)
        self._answers = 0  # steps that gave logits
        body, head = self._decoder.body, self._decoder.head
        self.programs = {"embed": body, "full": body + head, "largest": body + self._decoder.greedy_head(self.screen)}
        copies = self._copying.kernels if self._copying else set()
        self._kernels.require(packing.kernels.union(KERNELS, copies, *(p.kernels for p in self.programs.values())))
        self._pool = ThreadPool(self._kernels, threads)
        weakref.finalize(self, self._pool.close)  # a model that is forgotten, or fails below, leaves no threads behind
        self._assembled = {name: program.assemble(self._kernels) for name, program in self.programs.items()}
        if idle:
            idle()
        packing.run(self._run)
        for matrix in self.matrices.values():
            if isinstance(matrix, TernaryMatrix):
                matrix.check()
        self._state = address(self._decoder.state)
        state = self._decoder.state.view(np.int64)
        self._inputs = StepInputs(state, limits.tokens, self.config.vocab_size, limits.positions, limits.blocks)
        self.cycles: dict[str, NDArray[np.int64]] = {}  # by program: cycles of its calls, added up here

    def _run(self, program: Program) -> None:
        self._pool.run(program.assemble(self._kernels), address(self._decoder.state))

    def _screened_with(self, isa: instruction_sets.Isa, outputs: int) -> LMHeadScreen | None:
        """What tells which logits can be among the largest, where the output matrix allows it."""
        matrix = self.matrices[self.head_name]
        if isinstance(matrix, OrdinaryMatrix) and can_screen(isa, matrix, biased="output.bias" in self._vectors):
            return LMHeadScreen(matrix, outputs, self._scratch)
        return None

    def _embedding(self, tensor: Tensor) -> Embedding:
        """The kernel that looks rows up, and its arguments but for the state and the outputs."""
        scale = self.config.embedding_scale
        if is_ternary(tensor):
            scales = np.ascontiguousarray(block_scales(tensor))
            self._embedding_scales = scales
            rows, cols = tensor.shape
            return f"embed.{tensor.type}-trits", {
                "weights": address(tensor.data), "rows": rows, "n": cols, "scale": scale,
                "scales": address(scales), "group": cols // scales.shape[1], **self._scratch.arguments,
            }  # fmt: skip
        plain = self.matrices.get("token_embd.weight")
        if not isinstance(plain, OrdinaryMatrix):
            plain = OrdinaryMatrix.of(tensor)
        self._embedding_table = plain
        return f"embed.{tensor.type}", {
            "weights": address(plain.data), "row_bytes": plain.stride, "n": plain.padded, "scale": scale * tensor.scale,
        }  # fmt: skip

    def forward(self, batch: Batch) -> LogitsRows:
        """Logits of the wanted tokens; the buffer is overwritten by the next call."""
        n, ld = len(batch.outputs), self._decoder.logits_ld
        if n:
            self._answers += 1
            if self._answers == SETTLED:
                _collapse_huge_pages(self.matrices)
        program = self._program_for(batch)
        self._step(batch, program)
        if program == "largest" and self.screen:
            return self.screen.kept(self._decoder.logits, n)
        return self._decoder.logits[: n * ld].reshape(n, ld)[:, : self.config.vocab_size]

    def _program_for(self, batch: Batch) -> str:
        """All logits, or only those that can be among the largest.

        The copy of the head that tells them apart is made when the second token wants it: the first need not wait.
        """
        if not batch.top_logits or 0 in batch.top_logits:
            return "full"
        if self._copying:
            if self._answers <= 1:
                return "full"
            self._copying.run(self._run)
            self._copying = None
        return "largest"

    def decode(self, batch: Batch, steps: int, stops: frozenset[int]) -> list[list[int]]:
        """Several greedy steps in one call; none before the head's copy is made (see `backend.Model.decode`)."""
        if self._copying:
            return []
        self._take(batch, steps)
        self._inputs.repeat(steps, stops)
        self._run_taken("largest")
        return self._inputs.generated()

    def embed(self, batch: Batch) -> NDArray[np.float32]:
        """Final-norm hidden states (n, dim) of the wanted tokens."""
        self._step(batch, "embed")
        n, ld = len(batch.outputs), self._decoder.hidden_ld
        return self._decoder.hidden[: n * ld].reshape(n, ld)[:, : self.config.dim]

    def close(self) -> None:
        """Stop the workers."""
        self._pool.close()

    def _step(self, batch: Batch, program: str) -> None:
        self._take(batch)
        self._run_taken(program)

    def _take(self, batch: Batch, steps: int = 1) -> None:
        last = self._inputs.load(batch)
        for table in self._decoder.rope_tables.values():
            table.reach(last + steps)

    def _run_taken(self, program: str) -> None:
        self._pool.run(self._assembled[program], self._state, self.cycles.get(program))


def _laid_out(
    tensors: Mapping[str, Tensor], layout_name: str, packing: Packing, scratch: Scratch
) -> tuple[dict[str, Matrix], dict[str, NDArray[np.float32]]]:
    """Tensors as kernels take them: matrices, ternary ones still to be filled by `packing`, and padded vectors."""
    matrices: dict[str, Matrix] = {}
    vectors: dict[str, NDArray[np.float32]] = {}
    for name, tensor in tensors.items():
        if len(tensor.shape) == 1 or "mhc_" in name:
            vectors[name] = padded_vector(_floats(tensor))
        elif name == "token_embd.weight" and "output.weight" in tensors:
            continue  # looked up, never multiplied
        elif is_ternary(tensor):
            matrices[name] = TernaryMatrix.of(tensor, layout_name, packing, scratch)
        else:
            matrices[name] = OrdinaryMatrix.of(tensor)
    return matrices, vectors


def _told(weights: Weights, layout_name: str) -> str:
    """What becomes of weights that are in the kernels' own layout already."""
    if not any(ENCODINGS[tensor.type].chunk for tensor in weights.tensors.values()):
        return ""
    return {
        "lut16": "; weights are used where they lie in the file",
        "byte_dot": "; the file's layout is that of AVX-512, so weights are repacked",
    }[layout_name]


def _collapse_huge_pages(matrices: dict[str, Matrix]) -> None:
    """Packed weights into huge pages, beside the steps that follow: what is only starting need not wait for it."""
    packed = [m.codes for m in matrices.values() if isinstance(m, TernaryMatrix) and m.codes.flags.writeable]
    threading.Thread(target=collapse_huge_pages, args=[packed], name="ternrun-pages", daemon=True).start()


def _floats(tensor: Tensor) -> NDArray[np.float32]:
    """A small float tensor (norms, biases, mixing tables) as float32."""
    dtype = {"F32": "<f4", "F16": "<f2"}.get(tensor.type)
    if dtype:
        values = tensor.data.view(dtype).astype(np.float32)
    elif tensor.type == "BF16":
        values = (tensor.data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        raise LoadError(f"tensor {tensor.name} is {tensor.type}; a vector must be F32, F16 or BF16")
    if not np.isfinite(values).all():
        raise LoadError(f"tensor {tensor.name} holds values that are not finite numbers")
    return values * np.float32(tensor.scale)
