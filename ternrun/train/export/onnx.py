"""A checkpoint as ONNX: the very tensors that its GGUF file has, in a graph that onnxruntime runs."""

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
    """Write the graph to `path`, ternary weights in one of `write.FORMS`, and tokenizer.json beside it.

    Raises UsageError where the form cannot hold the model, or another tokenizer lies there already.
    """
    beside, text = path.parent / "tokenizer.json", tokenizer.to_str(pretty=True)
    if beside.exists() and json.loads(beside.read_text(encoding="utf-8")) != json.loads(text):
        raise UsageError(f"{beside} is another model's tokenizer; write to a folder of its own")
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "model.gguf"
        export(model, tokenizer, whole, ternary=KERNEL, dense=dense)
        with open_model(whole) as opened:
            write_onnx(path, opened.weights, form)
    beside.write_text(text, encoding="utf-8")
