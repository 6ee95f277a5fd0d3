"""Files that people take for a model, by their first bytes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from ternrun.loader.unsupported.ollama import blob_of
from ternrun.loader.unsupported.remedies import ADAPTER, ELSEWHERE, IMATRIX, TORCH

HEAD = 4096  # bytes that are looked at
_PICKLE = f"is a torch checkpoint (a pickle), not a model that ternrun reads; {TORCH}"
_UNPACK = "not a model; unpack it and name what is in it"

_BYTES: tuple[tuple[int, bytes, str], ...] = (  # offset, what stands there, what the file is
    (0, b"version https://git-lfs", "is a Git LFS pointer, not the model; fetch the file itself with 'git lfs pull'"),
    (0, b"FUGG", "is big-endian; only little-endian GGUF files are read: convert the model again"),
    (0, b"lmgg", "is of a format older than GGUF; convert the model again (whisper.cpp's speech models begin so, too)"),
    (0, b"fmgg", "is of a format older than GGUF; convert the model again"),
    (0, b"tjgg", "is of a format older than GGUF; convert the model again"),
    (0, b"algg", "is a LoRA adapter of a format older than GGUF, not a model; name the model it was made for"),
    (0, b"\x1f\x8b", f"is a gzip archive, {_UNPACK}: gunzip PATH, or tar -xzf PATH"),
    (0, b"\x28\xb5\x2f\xfd", f"is a zstd archive, {_UNPACK}: unzstd PATH"),
    (0, b"\xfd7zXZ\0", f"is an xz archive, {_UNPACK}: unxz PATH"),
    (0, b"BZh", f"is a bzip2 archive, {_UNPACK}: bunzip2 PATH"),
    (0, b"\x04\x22\x4d\x18", f"is an lz4 archive, {_UNPACK}: unlz4 PATH"),
    (0, b"7z\xbc\xaf\x27\x1c", f"is a 7z archive, {_UNPACK}: 7z x PATH"),
    (0, b"Rar!\x1a\x07", f"is a rar archive, {_UNPACK}: unrar x PATH"),
    (257, b"ustar", f"is a tar archive, {_UNPACK}: tar -xf PATH"),
    (0, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", _PICKLE),
    (0, b"\x89HDF\r\n\x1a\n", f"is an HDF5 file, as Keras and TensorFlow write them; {ELSEWHERE}"),
    (4, b"TFL3", f"is a TensorFlow Lite model, which ternrun does not read; {ELSEWHERE}"),
    (0, b"\x93NUMPY", f"is a NumPy array, not a model; {ELSEWHERE}"),
    (0, b"MZqFpD", "is a llamafile, a program with a model in it; take the model out: unzip PATH '*.gguf'"),
    (0, b"MZ", "is a program, not a model"),
    (0, b"\x7fELF", "is a program or library, not a GGUF file"),
    (0, b"\x89PNG", "is a picture, not a model"),
    (0, b"\xff\xd8\xff", "is a picture, not a model"),
    (0, b"%PDF", "is a PDF document, not a model"),
    (0, b"SQLite format 3", "is an SQLite database, not a model"),
)  # fmt: skip


def foreign_file(path: Path, head: bytes) -> str | None:
    """What a file is that begins with `head` (at most HEAD bytes): the rest of a sentence behind its path.

    None where it is unknown, or begins as a GGUF file.
    """
    if not head:
        return "is empty (0 bytes); download it again"
    if head.startswith((b"GGUF", b"GUGF")):
        return None
    if b"GGUF".startswith(head):
        return f"has only {len(head)} bytes; download it again"
    for at, start, known in _BYTES:
        if head.startswith(start, at):
            return known.replace("PATH", shlex.quote(str(path)))
    return next((says for tell in _TELLERS if (says := tell(path, head))), None)


def _zip(path: Path, head: bytes) -> str | None:
    if not head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return None
    if b"data.pkl" in head:
        return _PICKLE
    if path.suffix == ".npz" or b".npy" in head[30:300]:
        return f"is a file of NumPy arrays, not a model; {ELSEWHERE}"
    if path.suffix == ".keras" or b"model.weights.h5" in head:
        return f"is a Keras model, which ternrun does not read; {ELSEWHERE}"
    return f"is a zip archive, {_UNPACK}: unzip {shlex.quote(str(path))}"


def _pickle(_: Path, head: bytes) -> str | None:
    return _PICKLE if re.match(rb"\x80[\x02-\x05]", head) else None


def _safetensors(path: Path, head: bytes) -> str | None:
    if head[8:9] != b"{":
        return None
    if re.match(rb'\{\s*"__metadata__"\s*:\s*\{\s*"ternrun"\s*:', head[8:]):
        name = shlex.quote(str(path))
        return f"is a checkpoint of `ternrun train`, not yet a model; export it: ternrun train export {name} model.gguf"
    if b"lora_" in head:
        return f"is a LoRA adapter, not a model; {ADAPTER}"
    if (path.parent / "config.json").is_file():
        return None  # the folder is the model
    return "looks like a safetensors file, which holds weights alone; put its config.json and tokenizer.json beside it"


_PAGE = "is a web page, not a model; download the file itself (a link with /resolve/ in it, not /blob/)"
_MARKUP: tuple[tuple[bytes, str], ...] = (  # what stands in a text that begins with <
    (b"<!doctype html", _PAGE),
    (b"<html", _PAGE),
    (b"<net ", f"is an OpenVINO model, which ternrun does not read; {ELSEWHERE}"),
    (b"<error", "is a server's error message, not a model; download the file again"),
)  # fmt: skip
_JSON: tuple[tuple[bytes, str], ...] = (
    (b'"weight_map"', "is the index of a sharded model; name the folder it lies in"),
    (b'"peft_type"', f"describes a LoRA adapter, not a model; {ADAPTER}"),
    (b'"_diffusers_version"', "describes a diffusers pipeline, which makes pictures; ternrun runs language models"),
    (b'"added_tokens"', "is a tokenizer without a model; name the folder it lies in, with the weights"),
    (b'"tokenizer_class"', "is a tokenizer's configuration; name the folder it lies in, with the weights"),
    (b'"messages"', "is a conversation, not a model; in `ternrun chat`, /load reads one"),
    (b'"error"', "is a JSON text with an error message, not a GGUF file; download the file again"),
)
_NAMES: dict[str, str] = {  # of texts
    ".toml": "is a TOML text, not a model; a training configuration is for `ternrun train run`",
    ".py": "is a Python program, not a model",
    ".md": "is a text about a model, not a model; name the .gguf file or the folder with the weights",
    ".jinja": "is a chat template, not a model; --chat-template-file takes it beside -m MODEL",
    ".gbnf": "is a grammar, not a model; --grammar-file takes it beside -m MODEL",
    ".jsonl": "holds JSON lines, not a model; `ternrun train data` reads them",
}


def _markup(_: Path, head: bytes) -> str | None:
    text = _text(head)
    if not text.startswith(b"<"):
        return None
    return next((says for start, says in _MARKUP if start in text.lower()), "is an XML or HTML text, not a model")


def _json(path: Path, head: bytes) -> str | None:
    if path.suffix == ".toml" or not _text(head).startswith((b"{", b"[")):
        return None
    if b"application/vnd.ollama.image.model" in head:
        return f"is an Ollama manifest; the model it names is {blob_of(path, head) or 'in the folder blobs'}"
    if path.suffix in (".jsonl", ".ndjson"):
        return _NAMES[".jsonl"]
    fitting = (says for key, says in _JSON if key in head)
    return next(fitting, "is a JSON text, not a GGUF file; name the .gguf file or the folder with the weights")


def _imatrix(_: Path, head: bytes) -> str | None:
    """The imatrix file of before GGUF: a count, then names of tensors behind their lengths."""
    entry = re.match(rb"[\s\S]{2}\0\0([\s\S])\0\0\0([\w.]+)", head)
    if entry and entry[2][: entry[1][0]].endswith(b".weight"):
        return IMATRIX
    return None


def _onnx(path: Path, head: bytes) -> str | None:
    known = path.suffix != ".onnx" and re.match(rb"\x08[\x03-\x10][\x12\x3a\x42]", head)
    return "looks like an ONNX file; give it a name that ends in .onnx" if known else None


def _plain(path: Path, head: bytes) -> str | None:
    try:
        text = head[: HEAD - 4].decode()  # the last bytes may be half a character
    except UnicodeDecodeError:
        return None
    if not text.strip() or not all(c.isprintable() or c in "\t\r\n\f" for c in text.removeprefix("\ufeff")):
        return None
    if re.search(r"(?m)^FROM \S", text):
        return "is an Ollama Modelfile, not a model; name the file behind its FROM"
    usual = "is a text, not a GGUF file; `ternrun complete -f FILE` takes a prompt from one, -m names the model"
    return _NAMES.get(path.suffix.lower(), usual)


def _text(head: bytes) -> bytes:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()


_TELLERS: tuple[Callable[[Path, bytes], str | None], ...] = (
    _zip, _pickle, _safetensors, _markup, _json, _imatrix, _onnx, _plain,
)  # fmt: skip
