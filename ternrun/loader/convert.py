"""Write a GGUF file from any model ternrun opens: projections in one encoding, everything else as exact as it was.

A ternary encoding takes only weights that are ternary already, unless `absmean` asks to round them as BitNet does
(arXiv 2402.17764: to the nearest of -1, 0 and 1 in units of the matrix's mean magnitude).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ternrun.errors import UsageError
from ternrun.files import check_new, check_target
from ternrun.loader.architectures.assemble import vector
from ternrun.loader.architectures.fused import fused_name
from ternrun.loader.architectures.table import ARCHITECTURES
from ternrun.loader.architectures.tensor_names import is_linear
from ternrun.loader.architectures.write_config import write_config
from ternrun.loader.gguf.open_file import part_paths
from ternrun.loader.gguf.types import TYPE_IDS
from ternrun.loader.gguf.write import write_gguf
from ternrun.loader.model import ModelFile, open_model
from ternrun.loader.quants.detect_ternary import Matrix, as_ternary
from ternrun.loader.quants.table import decode, encode, encode_trits, trits
from ternrun.loader.quants.ternary import HALF_SCALES
from ternrun.loader.tokenizers import carried
from ternrun.loader.tokenizers.to_gguf import vocabulary_metadata
from ternrun.loader.user_path import from_home
from ternrun.runtime.config import ModelConfig
from ternrun.runtime.cpu.weights.scales import row_scales
from ternrun.runtime.encodings import ENCODINGS, nbytes
from ternrun.runtime.weights import Tensor

TYPES = (
    "tq2_0", "tq1_0", "i2_s", "q2_0", "iq2_bn", "iq1_bn", "kernel", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16",
    "bf16", "f32",
)  # fmt: skip
HEAD_TYPES = ("q8_0", "f16", "bf16", "f32")
KERNEL = "KERNEL"  # the layout that the kernels read: one of the T9 types, as the scales of each tensor allow
_SPELLINGS = {
    "fp16": "f16", "float16": "f16", "half": "f16", "bfloat16": "bf16", "fp32": "f32", "float32": "f32",
    "float": "f32", "q8": "q8_0", "int8": "q8_0",
}  # fmt: skip
_LLAMA_TYPES = re.compile(r"i?q[1-8]_(k|xxs|xs|s|m|nl|l)\w*|q[1-8]_[01k]|mxfp4\w*|nvfp4")
_HEADS = ("token_embd.weight", "output.weight")
_NOT_CARRIED = ("general.architecture", "general.alignment", "general.file_type", "general.quantization_version")

Progress = Callable[[int, int], None]  # bytes written, bytes in all


def convert(
    source: str | Path, target: str | Path, type_name: str, *, head: str | None = None, absmean: bool = False,
    pre: str | None = None, force: bool = False, progress: Progress | None = None,
) -> Path:  # fmt: skip
    """Write `target`, a GGUF file whose projections are of `type_name` (one of TYPES) and embedding and head of `head`.

    The file appears under its name only when it is complete, and writes over another only by `force`. `pre` names the
    pre-tokenizer where the source does not. Raises UsageError for a type that cannot hold the weights or a target that
    cannot be written, LoadError for a source that cannot be read.
    """
    target = from_home(target)
    kind, head_kind = _encoding(type_name, TYPES), _encoding(head, HEAD_TYPES) if head else None
    check_target(target)
    if target.suffix in (".onnx", ".safetensors"):
        raise UsageError(f"{target} would be a GGUF file under another format's name; call it .gguf")
    with open_model(source, pre=pre) as model:
        if target.exists() and any(target.samefile(path) for path in part_paths(model.path) if path.exists()):
            raise UsageError(f"{target} is the model itself, or a part of it; name another file to write")
        check_new(target, force=force)
        if model.runner:
            raise UsageError(f"{model.path} is run as it is: its structure is none that a GGUF file can state")
        if pre is not None:
            _ = model.tokenizer  # one that nobody knows shows now, and not in every later use of the file
        config = _file_config(model.weights.config)
        metadata = write_config(config) | _carried(model, pre)
        if kind == KERNEL:
            metadata["general.alignment"] = 64  # a cache line
        plan = list(_plan(model, config, kind, head_kind, absmean))
        _report(plan, progress)
        try:
            write_gguf(target, metadata, plan)
        except OSError as e:
            raise UsageError(f"{target} cannot be written: {e.strerror or e}; nothing was changed") from e
    return target


def _encoding(name: str, choices: tuple[str, ...]) -> str:
    """Our name for a type, however it is spelt. Raises UsageError, for a type of llama.cpp's with what makes it."""
    plain = name.strip().lower().replace("-", "_")
    plain = _SPELLINGS.get(plain, plain)
    if plain in choices:
        return plain.upper()
    known = f"ternrun writes {', '.join(choices)}"
    if _LLAMA_TYPES.fullmatch(plain) and plain not in TYPES:
        made = f"first --type f16, then llama-quantize F16.gguf OUT.gguf {plain.upper()}"
        raise UsageError(f"{name!r} is a type that llama.cpp's llama-quantize makes ({made}); {known}")
    near = get_close_matches(plain, choices, 1)
    told = f"; did you mean {near[0]}? " if near else "; "
    raise UsageError(f"{name!r} is not a type to convert to{told}{known}")


@dataclass(slots=True)
class _Pending:
    """A tensor of the file to be, made when its turn comes, so that memory holds one at a time."""

    name: str
    type: str
    shape: tuple[int, ...]
    make: Callable[[], NDArray[np.uint8]]
    done: Callable[[], None] = lambda: None

    @property
    def data(self) -> NDArray[np.uint8]:
        """The bytes. Raises UsageError naming the tensor that its type cannot hold."""
        try:
            data = self.make()
        except UsageError as e:
            raise UsageError(f"tensor {self.name!r}: {e}") from e
        self.done()
        return data

    @property
    def size(self) -> int:
        return nbytes(self.type, self.shape) or 0


def _report(plan: list[_Pending], progress: Progress | None) -> None:
    if progress is None:
        return
    total, written = sum(p.size for p in plan), 0
    for pending in plan:
        written += pending.size
        pending.done = lambda so_far=written: progress(so_far, total)  # type: ignore[misc]


def _file_config(config: ModelConfig) -> ModelConfig:
    """The same model as its GGUF architecture wires it: llama's rotates neighbouring pairs."""
    style = ARCHITECTURES[config.architecture].rope_style
    if config.rope.style != style and config.rope.dim != config.head_dim:
        raise UsageError(f"a {config.architecture} model that rotates only a part of each head cannot be a GGUF file")
    return replace(config, rope=replace(config.rope, style=style))


def _carried(model: ModelFile, pre: str | None) -> dict[str, Any]:
    """Metadata about the model and its text, from the source."""
    keys = {
        key: value for key, value in model.metadata.items()
        if key.startswith(("general.", "tokenizer.", carried.PREFIX)) and key not in _NOT_CARRIED
    }  # fmt: skip
    if pre is not None:
        keys["tokenizer.ggml.pre"] = pre
        keys.pop(carried.DESCRIPTION, None)
    if model.text_folder is not None:
        keys |= vocabulary_metadata(model.text_folder, model.weights.config.vocab_size)
    return keys


def _plan(model: ModelFile, config: ModelConfig, kind: str, head: str | None, absmean: bool) -> Iterator[_Pending]:
    permuted = (".attn_q.", ".attn_k.") if config.rope.style != model.weights.config.rope.style else ()
    fused: dict[str, list[_Pending]] = {}
    for tensor in model.weights.tensors.values():
        order = _pairs(tensor, config) if any(part in tensor.name for part in permuted) else None
        pending = _pending(tensor, kind, head, order, absmean)
        whole = fused_name(tensor.name) if ARCHITECTURES[config.architecture].fused and kind != KERNEL else None
        if whole is None:
            yield pending
        else:
            fused.setdefault(whole, []).append(pending)
    for name, parts in fused.items():
        yield _fused_pending(name, parts)
    if config.rope.frequency_factors:
        factors = np.array(config.rope.frequency_factors, np.float32)
        yield _Pending("rope_freqs.weight", "F32", factors.shape, lambda: encode("F32", factors))


def _fused_pending(name: str, parts: list[_Pending]) -> _Pending:
    """One tensor of the rows of several, in the order q, k, v or gate, up (as `Weights` has them)."""
    rows = sum(part.shape[0] for part in parts)
    return _Pending(
        name, parts[0].type, (rows, parts[0].shape[1]), lambda: np.concatenate([part.make().ravel() for part in parts])
    )


def _pending(tensor: Tensor, kind: str, head: str | None, order: Any, absmean: bool) -> _Pending:
    name, shape = tensor.name, tensor.shape
    if len(shape) == 1 or ".mhc_" in name:  # norms and biases: float32, which loses nothing and which all readers take
        values = vector(tensor).reshape(shape)
        return _Pending(name, "F32", shape, lambda: encode("F32", values if order is None else values[order]))
    if is_linear(name) or tensor.type not in TYPE_IDS:  # the seed's and Hugging Face's own packings have no id
        _check_blocks(tensor, kind)
        if kind == KERNEL:
            return _kernel_pending(tensor, order, absmean)
        if ENCODINGS[kind].kind == "ternary":
            return _Pending(name, kind, shape, lambda: _encode_ternary(tensor, kind, order, absmean))
        return _Pending(name, kind, shape, lambda: encode(kind, _dense(tensor, order)))
    if head and name in _HEADS and tensor.type != head:
        return _Pending(name, head, shape, lambda: encode(head, _dense(tensor, None)))
    return _Pending(name, tensor.type, shape, lambda: tensor.data)


def _kernel_pending(tensor: Tensor, order: NDArray[np.intp] | None, absmean: bool) -> _Pending:
    """In the layout of the kernels, by what the scales are: looked at now, since they decide the size."""
    ternary = ENCODINGS[tensor.type].kind == "ternary"
    scales = row_scales(tensor)[0] if ternary else _matrix(tensor, absmean)[1]
    kind = "T9_ROW" if scales.shape[1] == 1 else f"T9_{tensor.shape[1] // scales.shape[1]}"
    return _Pending(tensor.name, kind, tensor.shape, lambda: _encode_ternary(tensor, kind, order, absmean))


def _check_blocks(tensor: Tensor, kind: str) -> None:
    if kind == KERNEL:
        return
    if nbytes(kind, tensor.shape) is None:
        fitting = [name for name in TYPES if name == "kernel" or nbytes(name.upper(), tensor.shape) is not None]
        raise UsageError(
            f"tensor {tensor.name!r} of shape {list(tensor.shape)} does not divide into blocks of {kind}; "
            f"these types can hold it: {', '.join(fitting)}"
        )


def _pairs(tensor: Tensor, config: ModelConfig) -> NDArray[np.intp]:
    """Order of rows that turns rotation of halves into rotation of neighbours, head by head."""
    half = np.arange(tensor.shape[0]).reshape(-1, 2, config.head_dim // 2)
    return half.swapaxes(1, 2).ravel()


def _dense(tensor: Tensor, order: NDArray[np.intp] | None) -> NDArray[np.float32]:
    values = decode(tensor.type, tensor.data, tensor.shape, name=tensor.name) * np.float32(tensor.scale)
    return values if order is None else values[order]


def _encode_ternary(tensor: Tensor, kind: str, order: NDArray[np.intp] | None, absmean: bool) -> NDArray[np.uint8]:
    codes, scales = _matrix(tensor, absmean)
    scales = np.broadcast_to(scales, (len(codes), scales.shape[1]))
    if order is not None:
        codes, scales = codes[order], scales[order]
    if kind == "T9_ROW" and scales.shape[1] > 1:
        codes, scales = _merged(codes, scales)
    halves = kind in HALF_SCALES
    with np.errstate(all="ignore"):
        if halves and (np.abs(scales.astype(np.float16) - scales) > np.abs(scales) / 1000).any():
            raise UsageError(f"its scale {scales.flat[0]:g} does not fit the fp16 of {kind}; write i2_s or iq2_bn")
    return encode_trits(kind, codes, scales)


def _merged(codes: NDArray[np.int8], scales: NDArray[np.float32]) -> Matrix:
    """The one scale of each row, whose blocks of scale 0 become zeros."""
    top = np.take_along_axis(scales, np.abs(scales).argmax(axis=1)[:, None], axis=1)
    return codes * np.repeat(scales != 0, codes.shape[1] // scales.shape[1], axis=1), top


def _matrix(tensor: Tensor, absmean: bool) -> Matrix:
    """Trits (rows, cols) and scales (rows or 1, groups) of a matrix that is ternary, or is to be made so."""
    if ENCODINGS[tensor.type].kind == "ternary":
        codes, scales = trits(tensor.type, tensor.data, tensor.shape, name=tensor.name)
        return codes, scales * np.float32(tensor.scale)
    dense = _dense(tensor, None)
    if absmean:
        scale = np.maximum(np.abs(dense).mean(dtype=np.float64), 1e-5).astype(np.float32)
        return np.clip(np.rint(dense / scale), -1, 1).astype(np.int8), np.full((1, 1), scale)
    found = as_ternary(dense)
    if found is None:
        raise UsageError(
            "its weights are not ternary; write q8_0 or f16, or round them to ternary with --absmean "
            "(only a model trained for it survives that)"
        )
    return found
