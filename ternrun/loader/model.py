"""Open a model whatever it is kept in: a GGUF file or its parts, a folder of safetensors, or ONNX."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ternrun.errors import ConfigError, LoadError, UsageError
from ternrun.loader.architectures import nanochat_ternary
from ternrun.loader.architectures.assemble import assemble, vector
from ternrun.loader.architectures.gguf_config import read_config
from ternrun.loader.gguf.file import GGUFFile, open_gguf
from ternrun.loader.model_id import model_id
from ternrun.loader.sampling_defaults import read_sampling
from ternrun.runtime.backend.protocol import Model
from ternrun.runtime.config import EngineConfig
from ternrun.runtime.weights import Tensor, Weights

if TYPE_CHECKING:  # both pull in packages that take time: imported when text is first at hand
    from ternrun.loader.chat.template import ChatTemplate
    from ternrun.loader.tokenizers.tokenizer import Tokenizer
    from ternrun.onnx.format.graph import OnnxModel


_COMPANIONS = ("mmproj", "imatrix")  # in the names of files that lie beside a model and are none
Runner = Callable[[EngineConfig], Model]


class ModelFile:
    """A checked model: `weights` map the file; `tokenizer` and `chat_template` are built when first asked for."""

    def __init__(
        self,
        path: Path,
        weights: Weights,
        metadata: Mapping[str, Any],
        size: int,
        *,
        text_folder: Path | None,
        pre: str | None,
        runner: Runner | None = None,
    ) -> None:
        self.path = path
        name = metadata.get("general.name")
        self.name = name if isinstance(name, str) and name else path.stem
        self.id = model_id(path)
        self.weights = weights
        self.metadata = metadata
        self.size = size  # bytes on disk
        self.text_folder = text_folder  # where tokenizer.json lies; None: the vocabulary is in the metadata
        self.runner = runner  # what runs a model that is no set of weights but a graph; None: a backend does
        self.template: str | None = None  # in place of the metadata's
        self._pre = pre
        self._lock = threading.Lock()
        self._tokenizer: Tokenizer | None = None

    @property
    def format(self) -> str:
        """What it is kept in: gguf, onnx or safetensors."""
        if self.path.suffix == ".onnx":
            return "onnx"
        return "safetensors" if self.path.is_dir() else "gguf"  # which needs no suffix: Ollama's blobs have none

    @property
    def parameters(self) -> int:
        """How many numbers its tensors hold; 0 where it runs as a graph."""
        return sum(prod(tensor.shape) for tensor in self.weights.tensors.values())

    @property
    def encoding(self) -> str:
        """The one that most of its numbers are stored in, such as TQ2_0; empty where it runs as a graph."""
        counts: Counter[str] = Counter()
        for tensor in self.weights.tensors.values():
            counts[tensor.type] += prod(tensor.shape)
        return counts.most_common(1)[0][0] if counts else ""

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises LoadError for a vocabulary that is missing, damaged or of an unknown kind."""
        from ternrun.loader.tokenizers.tokenizer import Tokenizer

        with self._lock:
            if self._tokenizer is None:
                if self.text_folder is not None:
                    self._tokenizer = Tokenizer.from_hf(self.text_folder, self.weights.config.vocab_size)
                else:
                    self._tokenizer = Tokenizer.from_gguf(self.metadata, pre=self._pre)
            return self._tokenizer

    @property
    def sampling(self) -> dict[str, Any]:
        """Fields of SamplingParams that the file recommends. Raises LoadError for values that cannot be."""
        return read_sampling(self.metadata)

    @property
    def chat_template(self) -> ChatTemplate | None:
        """`template`, or the model's own, corrected where it is known to be wrong; None if it has none.

        Raises TemplateError.
        """
        from ternrun.loader.chat.template import ChatTemplate, template_for

        source = template_for(self.metadata) if self.template is None else self.template
        if source is None:
            return None
        return ChatTemplate(source, self.tokenizer.bos_token, self.tokenizer.eos_token)

    def close(self) -> None:
        """Let go of the map; it is released once no backend uses it any more."""
        self.weights = Weights(self.weights.config, {})
        self._tokenizer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_model(path: str | Path, *, pre: str | None = None) -> ModelFile:
    """Open and check a GGUF file (any part of a split one), a .onnx file, or a folder: of either, or Hugging Face's.

    `pre` overrides the name of a GGUF file's pre-tokenizer. Raises LoadError: one sentence that names the file and the
    fault; UsageError for a `pre` that cannot apply.
    """
    asked = path = Path(path)
    try:
        asked = path = path.expanduser()
        if _is_encoder(path):
            return _open_encoder(path, pre)
        path = _resolve(path)
        if path.is_dir() or path.suffix == ".onnx":
            if pre is not None:
                fault = "states its own pre-tokenizer in tokenizer.json; leave out --pre (in Python: pre=)"
                raise UsageError(f"{path} {fault}")
            return _open_folder(path) if path.is_dir() else _open_graph(path)
        file = open_gguf(path)
        return ModelFile(path, gguf_weights(file), file.metadata, file.size, text_folder=None, pre=pre)
    except (LoadError, ConfigError, OSError, RuntimeError) as e:  # RuntimeError: a ~user who does not exist
        from ternrun.loader.unsupported.describe import describe  # a model need not wait for this

        for place in dict.fromkeys((asked, path)):
            if says := describe(place):
                raise LoadError(f"{place} {says}") from e
        named = str(path) in str(e)
        raise LoadError(str(e) if named else f"{path}: {e}") from e


def _open_folder(path: Path) -> ModelFile:
    from ternrun.loader.hf.folder import open_hf  # most models are GGUF files: they need not wait for this
    from ternrun.loader.tokenizers.to_gguf import chat_metadata

    model = open_hf(path)
    metadata = {"general.architecture": model.config.architecture, "general.name": path.resolve().name}
    metadata |= {"safetensors.notes": model.notes} if model.notes else {}
    metadata |= {f"config.{key}": value for key, value in model.stated.items()} | chat_metadata(path)
    return ModelFile(path, assemble(model.config, model.tensors), metadata, model.size, text_folder=path, pre=None)


def _open_graph(path: Path) -> ModelFile:
    from ternrun.loader.onnx.folder import stated_context, text_folder
    from ternrun.loader.onnx.open_file import open_file
    from ternrun.loader.onnx.recognize import recognize
    from ternrun.loader.tokenizers.to_gguf import chat_metadata
    from ternrun.onnx.recognition.trace import UnrecognizedError

    folder = text_folder(path)
    graph = open_file(path)
    try:
        found = recognize(graph, context=stated_context(folder))
    except UnrecognizedError as e:
        return _open_unrecognized(path, folder, graph, e)
    name = path.stem if path.stem not in ("model", "decoder_model_merged") else folder.name
    metadata: dict[str, Any] = {"general.architecture": found.weights.config.architecture, "general.name": name}
    metadata |= {"onnx.producer": graph.producer, "onnx.opset": graph.opsets.get("", 0), "onnx.decoder": found.summary}
    metadata |= {"onnx.weights": ", ".join(f"{n} x {form}" for form, n in found.forms.items())}
    metadata |= {"onnx.notes": "; ".join(found.notes)} if found.notes else {}
    metadata |= chat_metadata(folder)
    return ModelFile(path, found.weights, metadata, graph.size, text_folder=folder, pre=None)


def _open_unrecognized(path: Path, folder: Path, graph: OnnxModel, why: LoadError) -> ModelFile:
    """A decoder of unknown make, which is run operator by operator. Raises LoadError that says why twice over."""
    from ternrun.loader.onnx.folder import stated_context, stated_width
    from ternrun.loader.tokenizers.to_gguf import chat_metadata
    from ternrun.onnx.runtime.graph_decoder import GraphDecoder
    from ternrun.onnx.runtime.graph_model import GraphModel

    try:
        decoder = GraphDecoder(graph, context=stated_context(folder), width=stated_width(folder))
    except LoadError as e:
        raise LoadError(f"it is not a decoder that ternrun recognizes: {why}; nor can it be run as it is: {e}") from e
    name = path.stem if path.stem not in ("model", "decoder_model_merged") else folder.name
    metadata: dict[str, Any] = {"general.architecture": decoder.config.architecture, "general.name": name}
    metadata |= {"onnx.producer": graph.producer, "onnx.opset": graph.opsets.get("", 0)}
    metadata |= {"onnx.decoder": f"run operator by operator, because {why}"} | chat_metadata(folder)
    runner = partial(GraphModel, decoder, reason=str(why))
    weights = Weights(decoder.config, {})
    return ModelFile(path, weights, metadata, graph.size, text_folder=folder, pre=None, runner=runner)


def _is_encoder(path: Path) -> bool:
    """Whether a folder, or a .onnx file in one, is a sentence encoder."""
    if path.suffix != ".onnx" and not (path / "modules.json").is_file():
        return False
    from ternrun.loader.onnx.encoder import is_encoder  # few models are: the others need not wait for this

    return is_encoder(path)


def _open_encoder(path: Path, pre: str | None) -> ModelFile:
    if pre is not None:
        raise UsageError(f"{path} states its own pre-tokenizer in tokenizer.json; leave out --pre (in Python: pre=)")
    from ternrun.loader.onnx.embedder import EncoderModel, encoder_config
    from ternrun.loader.onnx.encoder import Encoder

    encoder = Encoder(path)
    config = encoder_config(encoder)
    metadata = {"general.architecture": config.architecture, "general.name": encoder.name}
    runner = partial(EncoderModel, encoder, config)
    weights, size = Weights(config, {}), encoder.size
    return ModelFile(encoder.path, weights, metadata, size, text_folder=encoder.folder, pre=None, runner=runner)


def gguf_weights(file: GGUFFile) -> Weights:
    """Configuration and checked tensors of a GGUF file. Raises LoadError or ConfigError naming the fault."""
    tensors = {}
    for name, entry in file.tensors.items():
        entry.checked()
        tensors[name] = Tensor(name, entry.type, entry.shape, entry.data)
    metadata = file.metadata
    if nanochat_ternary.wrote(metadata):
        metadata, tensors = nanochat_ternary.translate(metadata, tensors, file.paths[0])
    embedding = tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise LoadError("tensor 'token_embd.weight' is missing or not a matrix: this file holds no language model")
    config = read_config(metadata, embedding.shape[0], _frequency_factors(tensors))
    tokens = metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, Sequence) and len(tokens) > config.vocab_size:
        raise LoadError(f"the vocabulary has {len(tokens)} tokens, the embedding only {config.vocab_size} rows")
    return assemble(config, tensors)


def _frequency_factors(tensors: dict[str, Tensor]) -> tuple[float, ...]:
    """llama-3's divisors of RoPE frequencies, which travel as a tensor."""
    tensor = tensors.pop("rope_freqs.weight", None)
    if tensor is None:
        return ()
    if (
        tensor.type != "F32"
        or len(tensor.shape) != 1
        or tensor.data.size != 4 * tensor.shape[0]
        or tensor.data.size > 1 << 14
    ):
        raise LoadError(f"tensor 'rope_freqs.weight' has shape {list(tensor.shape)} and type {tensor.type}")
    return tuple(vector(tensor).tolist())


def _resolve(path: Path) -> Path:
    """The GGUF or ONNX file to open, or the folder that is a Hugging Face model."""
    if path.is_file() and (path.suffix == ".safetensors" or path.name == "config.json"):
        return path.parent
    if not path.is_dir() or ((path / "config.json").is_file() and not _only_onnx(path)):
        return path
    if _only_onnx(path):
        from ternrun.loader.onnx.folder import model_file

        return model_file(path)
    files = sorted(p for p in path.glob("*.gguf") if p.is_file())
    models = [p for p in files if "-of-" not in p.name or "-00001-of-" in p.name]
    models = [p for p in models if not any(word in p.name.lower() for word in _COMPANIONS)] or models
    if len(models) == 1:
        return models[0]
    if models:
        raise LoadError(f"{path} holds {len(models)} models; name one, such as {models[0]}")
    what = "safetensors files but no config.json" if any(path.glob("*.safetensors")) else "no model"
    raise LoadError(f"{path} is a folder that holds {what} (a .gguf or .onnx file, or config.json beside safetensors)")


def _only_onnx(path: Path) -> bool:
    """Whether a folder holds ONNX files and no weights in another form."""
    from ternrun.loader.onnx.folder import is_onnx_folder

    return is_onnx_folder(path) and not any(any(path.glob(p)) for p in ("*.safetensors", "*.gguf"))
