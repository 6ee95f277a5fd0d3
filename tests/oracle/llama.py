"""llama.cpp as the oracle: token ids and log-probabilities through llama-cpp-python's low-level binding.

Needs `pip install llama-cpp-python` (built from source); only the scripts in this folder do, never a test.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

BATCH = 512  # tokens that one llama_decode takes


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _silent(level: int, text: bytes, data: Any) -> None:
    pass


lib.llama_log_set(_silent, ctypes.c_void_p(0))
lib.llama_backend_init()


def oracle_version() -> dict[str, str]:
    """What made a reference file."""
    return {
        "llama-cpp-python": version("llama_cpp_python"),
        "system": lib.llama_print_system_info().decode().strip(),
    }


class Oracle:
    """One GGUF file in llama.cpp; `context` 0 opens only its vocabulary. `pre` overrides its pre-tokenizer."""

    def __init__(
        self, path: Path | str, *, context: int = 0, sequences: int = 1, threads: int = 2, pre: str | None = None
    ) -> None:
        params = lib.llama_model_default_params()
        params.vocab_only = context == 0
        params.n_gpu_layers = 0
        if pre is not None:
            overrides = (lib.llama_model_kv_override * 2)()
            overrides[0].key, overrides[0].tag = b"tokenizer.ggml.pre", lib.LLAMA_KV_OVERRIDE_TYPE_STR
            overrides[0].value.val_str = pre.encode()
            params.kv_overrides = overrides
        self._model = lib.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise SystemExit(f"llama.cpp does not open {path}")
        self.vocab = lib.llama_model_get_vocab(self._model)
        self.vocab_size = lib.llama_vocab_n_tokens(self.vocab)
        self._context = self._open_context(context, sequences, threads) if context else None

    def _open_context(self, context: int, sequences: int, threads: int) -> Any:
        params = lib.llama_context_default_params()
        params.n_ctx = context * sequences
        params.n_seq_max = sequences
        params.n_batch = params.n_ubatch = BATCH
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = 0  # GGML_TYPE_F32: nothing is rounded that the model does not round
        params.flash_attn_type = 0
        return lib.llama_init_from_model(self._model, params)

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            lib.llama_free(self._context)
        if getattr(self, "_model", None):
            lib.llama_model_free(self._model)

    def encode(self, text: str, *, special: bool = True, bos: bool = True) -> list[int]:
        """Ids, with the same meaning of `special` and `bos` as ternrun's Tokenizer.encode."""
        raw = text.encode()
        found = (ctypes.c_int32 * (len(raw) + 16))()
        count = lib.llama_tokenize(self.vocab, raw, len(raw), found, len(found), bos, special)
        assert count >= 0
        return list(found[:count])

    def end_ids(self) -> list[int]:
        """Every token that ends generation."""
        return [i for i in range(self.vocab_size) if lib.llama_vocab_is_eog(self.vocab, i)]

    def logprobs(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """Natural log-probabilities (len(ids), vocab_size) of the token after each, in a sequence of its own."""
        lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
        chunks = [
            [(0, at + i, token) for i, token in enumerate(ids[at : at + BATCH])] for at in range(0, len(ids), BATCH)
        ]
        logits = np.concatenate([self._decode(chunk) for chunk in chunks]).astype(np.float64)
        top = logits.max(axis=1, keepdims=True)
        return logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))

    def greedy(self, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        """The likeliest `count` tokens after each prompt, one by one; end tokens do not end it."""
        lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
        made = []
        for s, prompt in enumerate(prompts):
            last = self._decode([(s, i, token) for i, token in enumerate(prompt)])[-1]
            made.append([int(last.argmax())])
        while len(made[0]) < count:
            step = [(s, len(prompts[s]) + len(tokens) - 1, tokens[-1]) for s, tokens in enumerate(made)]
            for tokens, row in zip(made, self._decode(step), strict=True):
                tokens.append(int(row.argmax()))
        return made

    def _decode(self, tokens: Sequence[tuple[int, int, int]]) -> NDArray[np.float32]:
        """Run (sequence, position, id) triples, at most BATCH; logits (len(tokens), vocab_size)."""
        batch = lib.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, (sequence, position, token) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, 1
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
        if lib.llama_decode(self._context, batch):
            raise SystemExit("llama_decode failed")
        lib.llama_batch_free(batch)
        return np.ctypeslib.as_array(lib.llama_get_logits(self._context), (len(tokens), self.vocab_size)).copy()
