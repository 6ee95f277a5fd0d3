"""Read support for `nanochat-ternary` files, the project ternrun succeeds: translated into a `ternrun` model.

The file keeps its mHC-lite parameters (arXiv 2601.05732) beside it, in `NAME.mhc`; here they become one F32 tensor a
sublayer, `blk.N.mhc_attn.weight` and `blk.N.mhc_ffn.weight`, of shape (streams + 2, streams): the mixing matrix, the
row that reads the streams, the row that writes to them (docs/formats.md).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import LoadError
from ternrun.loader.architectures.metadata import Keys
from ternrun.loader.architectures.table import OWN
from ternrun.runtime.weights import Tensor

_MAGIC, _VERSION = 0x6D484321, 1
_FLOATS = {2: 1 + 4 * 2, 4: 24 + 4 * 4}  # streams -> float32 values a sublayer
_GAIN = {2: 2.0, 4: 4.0}  # what a sublayer writes to a stream is at most this often its output
_NAMES = {
    "attention.wq": "attn_q", "attention.wk": "attn_k", "attention.wv": "attn_v", "attention.wo": "attn_output",
    "ffn.w_gate": "ffn_gate", "ffn.w_up": "ffn_up", "ffn.w_down": "ffn_down",
    "norm_attn": "attn_norm", "norm_ffn": "ffn_norm",
}  # fmt: skip
_MODEL_NAMES = {"tok_embed": "token_embd", "norm_final": "output_norm", "lm_head": "output"}
_KEYS = ("dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len", "group_size", "mhc_n_streams",
         "weight_tied", "rope_theta", "ffn_mult", "rope_scale")  # fmt: skip


def wrote(metadata: Mapping[str, Any]) -> bool:
    """Whether this is such a file."""
    name = metadata.get("general.architecture")
    return isinstance(name, str) and name == "nanochat-ternary"


def translate(
    metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Metadata and tensors under ternrun's names; `path` is the model file, beside which the `.mhc` file lies.

    Raises LoadError for a missing or damaged side file and for the variants that were experiments (loops, wave fields).
    """
    for key in metadata:
        if key.startswith("nanochat.") and key.removeprefix("nanochat.") not in _KEYS:
            raise LoadError(f"metadata key {key!r} belongs to an experiment of the seed project that is not supported")
    keys = Keys(metadata, "nanochat")
    if keys.integer("group_size", 128) != 128:
        keys.fail("group_size", "128", keys.raw("group_size"))
    if keys.number("rope_scale", 1.0) != 1.0:
        keys.fail("rope_scale", "1", keys.raw("rope_scale"))
    renamed = {new: Tensor(new, t.type, t.shape, t.data) for t in tensors.values() for new in [_rename(t.name)]}
    if not keys.integer("weight_tied", 0) and "output.weight" not in renamed:
        raise LoadError("tensor 'lm_head.weight' is missing")
    gate = renamed.get("blk.0.ffn_gate.weight")
    streams, n_layers = keys.integer("mhc_n_streams", 1), keys.integer("n_layers")
    if n_layers < 1:
        keys.fail("n_layers", "at least 1", n_layers)
    if streams > 1:
        renamed |= {t.name: t for t in _read_side_file(path, n_layers, streams)}
    heads = keys.integer("n_heads")
    return dict(metadata) | {
        "general.architecture": OWN,
        f"{OWN}.context_length": keys.integer("max_seq_len", 2048),
        f"{OWN}.embedding_length": keys.integer("dim"),
        f"{OWN}.block_count": n_layers,
        f"{OWN}.feed_forward_length": gate.shape[0] if gate else 1,
        f"{OWN}.attention.head_count": heads,
        f"{OWN}.attention.head_count_kv": keys.integer("n_kv_heads", heads),
        f"{OWN}.attention.layer_norm_rms_epsilon": 1e-6,
        f"{OWN}.rope.freq_base": keys.number("rope_theta", 10000.0),
        f"{OWN}.mhc_streams": streams,
    }, renamed


def _rename(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in _MODEL_NAMES:
        return f"{_MODEL_NAMES[stem]}.weight"
    block, _, rest = stem.removeprefix("blocks.").partition(".")
    return f"blk.{block}.{_NAMES[rest]}.weight" if rest in _NAMES else name


def _read_side_file(path: Path, n_layers: int, streams: int) -> list[Tensor]:
    side = path.with_suffix(".mhc")
    if streams not in _FLOATS:
        raise LoadError(f"metadata key nanochat.mhc_n_streams must be 1, 2 or 4, not {streams}")
    if not side.is_file():
        raise LoadError(
            f"the model has {streams} residual streams, whose parameters belong in {side.name}: put it beside"
        )
    size = 16 + 2 * n_layers * _FLOATS[streams] * 4
    if side.stat().st_size != size:
        raise LoadError(f"{side.name} has {side.stat().st_size} bytes where {n_layers} layers need {size}")
    data = side.read_bytes()
    if struct.unpack_from("<4I", data) != (_MAGIC, _VERSION, 2 * n_layers, streams):
        raise LoadError(f"{side.name} is not the parameter file of this model: its header differs")
    values = np.frombuffer(data, "<f4", offset=16).reshape(2 * n_layers, -1).astype(np.float32)
    if not np.isfinite(values).all():
        raise LoadError(f"{side.name} holds values that are not finite numbers")
    names = [f"blk.{n}.mhc_{part}.weight" for n in range(n_layers) for part in ("attn", "ffn")]
    return [_tensor(name, stream_table(row, streams)) for name, row in zip(names, values, strict=True)]


def _tensor(name: str, values: NDArray[np.float32]) -> Tensor:
    return Tensor(name, "F32", values.shape, values.view(np.uint8).reshape(-1))


def stream_table(values: NDArray[np.float32], streams: int) -> NDArray[np.float32]:
    """(streams + 2, streams) coefficients from one sublayer's logits, in the side file's order.

    There, streams' = H (streams + post * f): so what is written to them is H post.
    """
    logits, rest = values[: -4 * streams], values[-4 * streams :].reshape(4, streams)
    if streams == 2:
        alpha = _sigmoid(logits[0])
        mix = np.array([[alpha, 1 - alpha], [1 - alpha, alpha]])
    else:
        weights = np.exp(logits.astype(np.float64) - logits.max())
        matrices = np.eye(streams)[list(permutations(range(streams)))]  # (24, 4, 4), in lexicographic order
        mix = np.einsum("k,kij->ij", weights / weights.sum(), matrices)
    read, write = _sigmoid(rest[0] + rest[1]), _GAIN[streams] * _sigmoid(rest[2] + rest[3])
    return np.ascontiguousarray(np.concatenate([mix, read[None], (mix @ write)[None]]), np.float32)


def _sigmoid(x: NDArray[np.float32]) -> Any:
    return 1 / (1 + np.exp(-np.clip(x.astype(np.float64), -700, 700)))
