"""Sentence embeddings from a folder with an ONNX encoder (such as BERT) and the files of sentence-transformers.

`modules.json` names pooling and normalization; without that file, vectors are normalized means.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from ternrun.errors import ContextError, LoadError, UsageError
from ternrun.loader.onnx.open_file import open_file
from ternrun.loader.onnx.pooling import POOLING, Floats, read_limit, read_pooling
from ternrun.loader.tokenizers.hf_files import read_tokenizer_files
from ternrun.loader.tokenizers.tokenizer_json import load_library
from ternrun.loader.user_path import from_home
from ternrun.onnx.format.half_precision import in_float32
from ternrun.onnx.runtime.session import Session

BATCH_TOKENS = 2048  # of one run, with padding: a larger run is no faster on a CPU and takes memory


class Encoder:
    """Texts in, vectors out: `Encoder("folder").embed(["a text"])`. Any number of threads may use it at once."""

    def __init__(self, path: str | Path) -> None:
        """`path`: a folder with one .onnx file (or `onnx/model.onnx`) and tokenizer.json, or that file.

        Raises LoadError for files that are damaged, missing or of a kind that is not supported.
        """
        file = graph_file(from_home(path))
        self.folder = file.parent.parent if file.parent.name == "onnx" else file.parent
        self.name = self.folder.resolve().name
        self.path = file
        self._session = Session(in_float32(open_file(file)))
        known = {"input_ids", "attention_mask", "token_type_ids", "position_ids"}
        self._inputs = {v.name: v for v in self._session.inputs}
        if "input_ids" not in self._inputs or not set(self._inputs) <= known:
            raise LoadError(f"{file} takes {', '.join(self._inputs)[:200]}: it is not an encoder of texts")
        self.pooling, self.normalize = read_pooling(self.folder)
        self._output, self._pooled = _output(self._session, file)
        files = read_tokenizer_files(self.folder)
        padding = files.description.get("padding")
        self._pad = padding.get("pad_id", 0) if isinstance(padding, dict) else 0
        self._library = load_library(files.text or json.dumps(files.description), str(files.path))
        self.context = read_limit(self.folder)

    @property
    def size(self) -> int:
        """Bytes of the graph and its data files."""
        return self._session.model.size

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return int(self._library.get_vocab_size(with_added_tokens=True))

    @cached_property
    def dim(self) -> int:
        """Elements of a vector."""
        return int(self.embed(["a"])[0].shape[1])

    def tokens(self, text: str) -> list[int]:
        """Ids of a text, with the tokens that begin and end one."""
        try:
            ids: list[int] = self._library.encode(text).ids
        except Exception as e:
            raise UsageError(f"the text cannot be encoded: {str(e)[:100]}") from e
        return ids

    def embed(self, texts: Sequence[str], *, truncate: bool = False) -> tuple[Floats, int]:
        """Vectors (texts, dim), and how many tokens the texts have in all.

        Raises ContextError for a text of more than `context` tokens, unless `truncate` cuts it.
        """
        if isinstance(texts, str):
            raise UsageError("embed takes a list of texts")
        return self.embed_ids([self.tokens(t) for t in texts], truncate=truncate)

    def embed_ids(self, rows: Sequence[Sequence[int]], *, truncate: bool = False) -> tuple[Floats, int]:
        """The same of token ids."""
        if truncate:
            rows = [r if len(r) <= self.context else [*r[: self.context - 1], r[-1]] for r in rows]
        size = self.vocab_size
        for row in rows:
            if not 0 < len(row) <= self.context:
                raise ContextError(f"a text has {len(row)} tokens; this model takes 1 to {self.context}")
            if not all(0 <= i < size for i in row):
                raise UsageError(f"a token id is outside the vocabulary of {size}")
        out: list[Any] = [None] * len(rows)
        for some in batches([len(r) for r in rows]):
            for i, vector in zip(some, self._vectors([rows[i] for i in some]), strict=True):
                out[i] = vector
        vectors = np.stack(out) if out else np.zeros((0, self.dim), np.float32)
        return vectors, sum(map(len, rows))

    def close(self) -> None:
        """Does nothing: threads and files are freed with the object."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _vectors(self, rows: Sequence[Sequence[int]]) -> Floats:
        hidden, mask = self.hidden(rows)
        vectors = hidden[:, 0] if self._pooled else POOLING[self.pooling](hidden, mask)
        if self.normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
        return vectors

    def hidden(self, rows: Sequence[Sequence[int]]) -> tuple[Floats, Floats]:
        """Hidden states (B, T, dim) of token ids and their mask (B, T); T is 1 if the graph pools."""
        longest = max(map(len, rows))
        ids = np.full((len(rows), longest), self._pad, np.int64)
        mask = np.zeros((len(rows), longest), np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        positions = np.broadcast_to(np.arange(longest), ids.shape)
        known = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids),
            "position_ids": positions,
        }
        kinds = {"INT32": np.int32, "INT64": np.int64}
        feeds = {n: known[n].astype(kinds.get(v.dtype, np.int64)) for n, v in self._inputs.items()}
        hidden = np.asarray(self._session.run(feeds)[self._output], np.float32)
        if hidden.ndim != 2 + (not self._pooled) or hidden.shape[0] != len(rows):
            raise LoadError(f"{self.path} gave {self._output!r} of shape {list(hidden.shape)}")
        return (hidden[:, None] if self._pooled else hidden), mask.astype(np.float32)


def graph_file(path: Path) -> Path:
    """The .onnx file of a folder: `model.onnx`, `onnx/model.onnx`, or its only one."""
    if path.is_file():
        return path
    for name in ("model.onnx", "onnx/model.onnx"):
        if (path / name).is_file():
            return path / name
    files = [*path.glob("*.onnx"), *path.glob("onnx/*.onnx")]
    if len(files) != 1:
        raise LoadError(f"{path} holds {len(files)} .onnx files; name one" if files else f"{path} holds no .onnx file")
    return files[0]


def is_encoder(path: Path) -> bool:
    """Whether a folder (or a graph's own) is laid out as sentence-transformers lays out an ONNX model."""
    try:
        file = graph_file(path)
    except (LoadError, OSError):
        return False
    folder = file.parent.parent if file.parent.name == "onnx" else file.parent
    return file.suffix == ".onnx" and (folder / "modules.json").is_file()


def _output(session: Session, file: Path) -> tuple[str, bool]:
    """The name of the output to use, and whether the graph pools it."""
    ranks = {v.name: len(v.shape) if v.shape is not None else None for v in session.outputs}
    for name, pooled in (("sentence_embedding", True), ("last_hidden_state", False), ("token_embeddings", False)):
        if name in ranks:
            return name, pooled
    for name, rank in ranks.items():
        if rank in (3, None):
            return name, False
    raise LoadError(f"{file} gives {', '.join(ranks)[:200]}, none of which are hidden states")


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of texts of similar length, batch by batch, so that little is padding."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[i] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
