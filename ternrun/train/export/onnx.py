"""Exporting a decoder as ONNX: the tensors of its GGUF file in a graph that onnxruntime can run."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tokenizers import Tokenizer

from ternrun.errors import UsageError
from ternrun.loader.model import open_model
from ternrun.loader.onnx.write import write_onnx
from ternrun.train.export.gguf import KERNEL, export
from ternrun.train.model.decoder import Decoder


def export_onnx(model: Decoder, tokenizer: Tokenizer, path: Path, *, form: str, dense: str = "f16") -> None:
    """Write the graph to `path`, with ternary weights in one of `write.FORMS`, and tokenizer.json beside it.

    Raises UsageError if the form cannot store the model, or another model's tokenizer.json is already there.
    """
    tokenizer_file, text = path.parent / "tokenizer.json", tokenizer.to_str(pretty=True)
    if tokenizer_file.exists() and json.loads(tokenizer_file.read_text(encoding="utf-8")) != json.loads(text):
        raise UsageError(f"{tokenizer_file} is another model's tokenizer; write to a folder of its own")
    with tempfile.TemporaryDirectory() as folder:
        gguf = Path(folder) / "model.gguf"
        export(model, tokenizer, gguf, ternary=KERNEL, dense=dense)
        with open_model(gguf) as opened:
            write_onnx(path, opened.weights, form)
    tokenizer_file.write_text(text, encoding="utf-8")
