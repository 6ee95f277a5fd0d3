"""Hugging Face folders whose config.json states a form or a purpose that ternrun does not serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from ternrun.errors import LoadError
from ternrun.loader.json_files import read_json
from ternrun.loader.unsupported.remedies import ELSEWHERE

_READ = ("bitnet",)  # quantization methods that the loader knows
_METHODS = {
    "awq": "AWQ", "gptq": "GPTQ", "bitsandbytes": "bitsandbytes", "exl2": "ExLlamaV2", "exl3": "ExLlamaV3",
    "fp8": "FP8", "fbgemm_fp8": "FP8", "hqq": "HQQ", "mxfp4": "MXFP4", "compressed-tensors": "compressed-tensors",
    "modelopt": "NVIDIA's ModelOpt", "torchao": "torchao", "quanto": "Quanto", "auto-round": "AutoRound",
    "aqlm": "AQLM", "vptq": "VPTQ", "quark": "AMD's Quark", "eetq": "EETQ", "spqr": "SpQR", "higgs": "HIGGS",
}  # fmt: skip
_METHOD_FILES = {"quant_config.json": "awq", "quantize_config.json": "gptq", "hf_quant_config.json": "modelopt"}

_SPEECH = "makes or understands sound; ternrun runs language models"
_PICTURES = "works on pictures; ternrun runs language models"
_ENCODER = "is an encoder, which ternrun runs as ONNX, for embeddings: optimum-cli export onnx --model PATH OUT"
_BOTH = "is an encoder with a decoder; ternrun runs decoders alone"
_PURPOSES: dict[str, tuple[str, ...]] = {
    _SPEECH: ("whisper", "wav2vec2", "hubert", "speecht5", "bark", "musicgen", "encodec", "vits", "moonshine"),
    _PICTURES: ("clip", "siglip", "siglip2", "vit", "dinov2", "dinov3_vit", "blip", "detr", "sam", "swin", "resnet"),
    _ENCODER: (
        "bert", "roberta", "distilbert", "xlm-roberta", "mpnet", "deberta", "deberta-v2", "albert", "electra",
        "modernbert", "nomic_bert", "camembert",
    ),
    _BOTH: ("t5", "mt5", "umt5", "bart", "mbart", "marian", "pegasus", "m2m_100"),
}  # fmt: skip


_ARCHITECTURES = {  # words in config.json's `architectures`
    "ForSequenceClassification": "classifies texts or scores them; ternrun continues and embeds texts",
    "ForTokenClassification": "classifies tokens; ternrun continues and embeds texts",
    "ForQuestionAnswering": "marks answers in a text; ternrun continues and embeds texts",
    "Eagle": "drafts for another model (EAGLE); ternrun drafts by n-grams: name the model itself",
    "Medusa": "drafts for another model (Medusa); ternrun drafts by n-grams: name the model itself",
}


def foreign_config(folder: Path, names: Sequence[str]) -> str | None:
    """The rest of a sentence behind the folder's path; None where config.json is none that is known here."""
    try:
        config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    except LoadError:
        return None
    kind = config.get("model_type")
    for says, kinds in _PURPOSES.items():
        if kind in kinds:
            return f"holds a model of type {kind}: it {says.replace('PATH', quote(str(folder)))}"
    if "_class_name" in config:
        return "is a part of a diffusers pipeline, which makes pictures; ternrun runs language models"
    listed = config.get("architectures")
    architecture = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], str) else ""
    for word, says in _ARCHITECTURES.items():
        if word in architecture:
            return f"holds a model of class {architecture[:60]!r}: it {says}"
    return _quantized(folder, config, names)


def _quantized(folder: Path, config: Mapping[str, Any], names: Sequence[str]) -> str | None:
    stated = config.get("quantization_config", config.get("compression_config"))
    stated = stated if isinstance(stated, dict) else {}
    mlx = config.get("quantization")
    if isinstance(mlx, dict) and "group_size" in mlx and "quant_method" not in stated:
        return (
            f"is an MLX model, quantized to {str(mlx.get('bits'))[:8]} bits in Apple's form, which ternrun does not "
            f"read; undo that with mlx_lm.convert --hf-path {quote(str(folder))} -d, or {ELSEWHERE}"
        )
    method = stated.get("quant_method") or next((m for file, m in _METHOD_FILES.items() if file in names), None)
    if method is None and any(stated.get(key) for key in ("load_in_4bit", "load_in_8bit")):
        method = "bitsandbytes"
    if not isinstance(method, str) or method in _READ:
        return None
    name = _METHODS.get(method, repr(method[:40]))
    return f"is quantized by {name}, which ternrun does not read; take the unquantized model, or {ELSEWHERE}"
