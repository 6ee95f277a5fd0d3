"""Loading a checkpoint as a model with its tokenizer, for export and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from ternrun.errors import ConfigError, LoadError
from ternrun.train.data.new_folder import TOKENIZER_FOLDER
from ternrun.train.data.token_file import Manifest, read_manifest, tokenizer_of
from ternrun.train.data.tokenizer import with_bos
from ternrun.train.loop import checkpoint
from ternrun.train.model.decoder import Decoder


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model as it was saved, and the data folder `data` that its tokenizer was read from.

    If the training data has several documents, the tokenizer puts the end token before a prompt, as in training.
    """

    model: Decoder
    tokenizer: Tokenizer
    manifest: Manifest
    data: Path
    step: int


def load_trained(path: Path, data: Path | None = None) -> TrainedModel:
    """Load a checkpoint with the tokenizer of the folder `data`, of the training data, or of the run's own copy.

    Raises LoadError for a damaged checkpoint, ConfigError if the folder has another tokenizer or the weights are not
    ternary yet.
    """
    saved = checkpoint.load(path)
    step, full = saved.state.step, saved.config.optim.full_steps
    if saved.config.in_full_precision(step):
        raise ConfigError(f"{path} is at step {step}; its weights become ternary from step {full} on (full_steps)")
    folder, copy = data or Path(saved.config.data.path), path.parent / TOKENIZER_FOLDER
    try:
        manifest, tokenizer = _read_tokenizer(folder, path, saved.tokenizer_sha256)
    except (ConfigError, LoadError):
        if data or not copy.is_dir():
            raise
        folder = copy
        manifest, tokenizer = _read_tokenizer(folder, path, saved.tokenizer_sha256)
    model = Decoder(saved.config.model)
    model.load_state_dict(saved.with_prefix("model."))
    if manifest.parts["train"].documents > 1:
        tokenizer = with_bos(tokenizer)
    return TrainedModel(model, tokenizer, manifest, folder, step)


def _read_tokenizer(folder: Path, path: Path, sha256: str) -> tuple[Manifest, Tokenizer]:
    manifest = read_manifest(folder)
    if manifest.tokenizer_sha256 != sha256:
        raise ConfigError(f"{path} was trained with another tokenizer than the one in {folder}")
    return manifest, tokenizer_of(folder, manifest)
