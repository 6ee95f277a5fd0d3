"""Folders that hold no model that ternrun runs, by what lies in them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from shlex import quote

from ternrun.loader.unsupported.configs import foreign_config
from ternrun.loader.unsupported.names import unfinished
from ternrun.loader.unsupported.remedies import ADAPTER, ELSEWHERE, TORCH

_MOST = 4096  # names that are looked at
_MODELS = ("*.safetensors", "*.gguf", "*.onnx")
_SHARD = re.compile(r"(?P<stem>.+)-\d+-of-(?P<total>\d{1,5})\.safetensors")
_CHECKPOINTS = ("best.safetensors", "last.safetensors")

_MARKS: tuple[tuple[str, str], ...] = (  # a name that says what a folder is, whatever else is in it
    ("adapter_config.json", f"is a LoRA adapter, not a model; {ADAPTER}"),
    ("adapter_model.*", f"is a LoRA adapter, not a model; {ADAPTER}"),
    ("model_index.json", "is a diffusers pipeline, which makes pictures; ternrun runs language models"),
    ("mlc-chat-config.json", f"is a model compiled by MLC, which ternrun does not read; {ELSEWHERE}"),
)
_NO_CONFIG: tuple[tuple[str, str], ...] = (  # a name that tells where there is no config.json
    ("consolidated*.safetensors", f"is a model in its maker's own form, with params.json; {ELSEWHERE}"),
    ("model_config.yaml", f"is a NeMo model, which ternrun does not read; {ELSEWHERE}"),
    ("*.zip", "holds a zip archive and no model; unpack it, and name the folder with what was in it"),
)
_INSTEAD: tuple[tuple[str, str], ...] = (  # a name that tells where no file of _MODELS is there
    ("zero_to_fp32.py", "is a DeepSpeed checkpoint; join it: python zero_to_fp32.py FOLDER OUT --safe_serialization"),
    ("*.distcp", "is a torch checkpoint in parts of many processes; join it: accelerate merge-weights FOLDER OUT"),
    ("pytorch_model*.bin", f"has its weights in pytorch_model.bin alone; {TORCH}"),
    ("optimizer.pt", f"holds the state of a training run and no weights; {ELSEWHERE}"),
    ("*.pth", f"has its weights in torch checkpoints (.pth) alone; {TORCH}"),
    ("*.pt", f"has its weights in torch checkpoints (.pt) alone; {TORCH}"),
    ("*.ckpt", f"has its weights in checkpoints (.ckpt) alone; {TORCH}"),
    ("openvino*.xml", f"is an OpenVINO model, which ternrun does not read; {ELSEWHERE}"),
    ("saved_model.pb", f"is a TensorFlow model, which ternrun does not read; {ELSEWHERE}"),
    ("*.mlpackage", f"holds a Core ML model, which ternrun does not read; {ELSEWHERE}"),
    ("*.mlmodel*", f"holds a Core ML model, which ternrun does not read; {ELSEWHERE}"),
    ("coremldata.bin", f"is a Core ML model, which ternrun does not read; {ELSEWHERE}"),
    ("*.engine", f"holds a TensorRT engine, which ternrun does not read; {ELSEWHERE}"),
    ("*.tflite", f"holds a TensorFlow Lite model, which ternrun does not read; {ELSEWHERE}"),
    ("*.pte", f"holds an ExecuTorch model, which ternrun does not read; {ELSEWHERE}"),
    ("*.h5", f"has its weights in Keras's and TensorFlow's .h5 alone; {ELSEWHERE}"),
    ("*.keras", f"holds a Keras model, which ternrun does not read; {ELSEWHERE}"),
    ("*.msgpack", f"has its weights for Flax alone (.msgpack); {ELSEWHERE}"),
    ("*.npz", f"has its weights in NumPy arrays alone; {ELSEWHERE}"),
    ("ggml-*.bin", f"holds a model of a format older than GGUF; {ELSEWHERE}"),
    ("*.bin", f"has its weights in .bin files alone, which are torch checkpoints as a rule; {TORCH}"),
    ("config.json", f"has a config.json and no weights beside it; {ELSEWHERE}"),
    ("tokenizer*", f"has a tokenizer and no weights beside it; {ELSEWHERE}"),
)


def foreign_folder(folder: Path) -> str | None:
    """What a folder is that no model could be opened in: the rest of a sentence behind its path; None if unknown."""
    try:
        names = sorted(path.name for path in islice(folder.iterdir(), _MOST))
    except OSError:
        return None
    return next((says for tell in _TELLERS if (says := tell(folder, names))), None)


def _run(folder: Path, names: Sequence[str]) -> str | None:
    """A training run's folder, or the one of its data."""
    if "manifest.json" in names and "train.bin" in names:
        data = quote(f"data.path={folder}")
        return f"holds data for training, not a model; train on them: ternrun train run PRESET --set {data} --out RUN"
    if "log.jsonl" not in names:
        return None
    found = next((name for name in _CHECKPOINTS if name in names), None)
    if found is None:
        return "is the folder of a training run that has no checkpoint yet; `ternrun train run` writes one"
    checkpoint = quote(str(folder / found))
    return f"is the folder of a training run, not yet a model; export it: ternrun train export {checkpoint} model.gguf"


def _marked(_: Path, names: Sequence[str]) -> str | None:
    return _first(_MARKS, names)


def _configured(folder: Path, names: Sequence[str]) -> str | None:
    return foreign_config(folder, names) if "config.json" in names else None


def _unconfigured(_: Path, names: Sequence[str]) -> str | None:
    seen = [name for name in names if not name.endswith(".gguf")]
    return None if "config.json" in names or len(seen) < len(names) else _first(_NO_CONFIG, names)


def _shards(_: Path, names: Sequence[str]) -> str | None:
    """Files of a split model of which one, or the index, is missing."""
    found = [match for name in names if (match := _SHARD.fullmatch(name))]
    if not found:
        return None
    stem, digits, total = found[0]["stem"], len(found[0]["total"]), int(found[0]["total"])
    wanted = (f"{stem}-{i:0{digits}}-of-{total:0{digits}}.safetensors" for i in range(1, min(total, _MOST) + 1))
    missing = next((name for name in wanted if name not in names), None)
    if missing:
        return f"holds only a part of a model in {total} files: {missing} is missing; download it, too"
    index = f"{stem}.safetensors.index.json"
    return None if index in names else f"holds a model in {total} files without {index}; download that file, too"


def _instead(_: Path, names: Sequence[str]) -> str | None:
    return None if _has_model(names) else _first(_INSTEAD, names)


def _pieces(folder: Path, names: Sequence[str]) -> str | None:
    """Parts of a model without its first, or a file that is not whole."""
    if any(fnmatchcase(name, "*-of-*.gguf") for name in names) and not any("-00001-of-" in name for name in names):
        return "holds parts of a split model without its first, NAME-00001-of-0000N.gguf; the parts must lie together"
    if _has_model(names):
        return None
    told = ((name, unfinished(folder / name)) for name in names)
    return next((f"holds no whole model: {name} {says}" for name, says in told if says), None)


def _below(folder: Path, names: Sequence[str]) -> str | None:
    """Folders of models, such as the hub's cache and LM Studio's; Ollama's, whose files are named by digests."""
    if {"blobs", "manifests"} <= set(names):
        return "is Ollama's store; name the file behind FROM in what `ollama show --modelfile NAME` prints"
    if _has_model(names):
        return None
    for place, folders, files in islice(os.walk(folder), _MOST):
        folders[:] = sorted(folders)[:64] if len(Path(place).parts) - len(folder.parts) < 4 else []
        found = [name for name in sorted(files) if _has_model([name])]
        if found:
            name = Path(place) / found[0] if found[0].endswith(".gguf") else Path(place)
            return f"has models in folders below it; name one, such as {name}"
    return None


def _nothing(_: Path, names: Sequence[str]) -> str | None:
    return None if names else f"is an empty folder and holds no model; {ELSEWHERE}"


def _has_model(names: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in _MODELS)


def _first(table: tuple[tuple[str, str], ...], names: Sequence[str]) -> str | None:
    return next((says for pattern, says in table if any(fnmatchcase(name, pattern) for name in names)), None)


_TELLERS: tuple[Callable[[Path, Sequence[str]], str | None], ...] = (
    _run, _marked, _configured, _pieces, _shards, _unconfigured, _instead, _below, _nothing,
)  # fmt: skip
