"""The data of a run: the configured data folder, the folders mixed into it, and the validation part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from tokenizers import Tokenizer

from ternrun.errors import ConfigError
from ternrun.train.config import TrainConfig
from ternrun.train.data import tokenizer as tokenizers
from ternrun.train.data.augmentation import Augmentation
from ternrun.train.data.mixture import Mixture
from ternrun.train.data.token_file import Manifest, open_tokens, read_manifest, tokenizer_of
from ternrun.train.data.windows import Windows, check_scorable


@dataclass(frozen=True, slots=True)
class Corpus:
    """Training windows and validation tokens of one tokenizer. `manifest` and `val` belong to the first folder.

    `bytes_per_token` is the mean over the training windows. `mixed` describes the additional folders for the model
    card: share, documents, tokens and sources by folder, as plain JSON values.
    """

    manifest: Manifest
    tokenizer: Tokenizer
    train: Mixture
    val: NDArray[Any]
    bytes_per_token: float
    mixed: dict[str, Any]


def open_corpus(config: TrainConfig) -> Corpus:
    """Open the data of a run. Raises LoadError for damaged data, ConfigError if the folders' tokenizers differ."""
    first = Path(config.data.path)
    manifest = read_manifest(first)
    tokenizer = tokenizer_of(first, manifest)
    others = [(Path(folder), read_manifest(Path(folder)), share) for folder, share in config.data.mix.items()]
    for folder, other, _ in others:
        if other.tokenizer_sha256 != manifest.tokenizer_sha256:
            remedy = f"make one of them with `--tokenizer {first / 'tokenizer.json'}`"
            raise ConfigError(f"{folder} has another tokenizer than {first}: {remedy}")
    augmentation = _augmentation(config, tokenizer)

    def windows(folder: Path, manifest: Manifest) -> Windows:
        return Windows(open_tokens(folder, "train", manifest), config.model.context, config.run.seed, augmentation)

    shares = [(manifest.parts["train"], 1 - sum(config.data.mix.values()))]
    shares += [(other.parts["train"], share) for _, other, share in others]
    return Corpus(
        manifest,
        tokenizer,
        Mixture(windows(first, manifest), [(windows(folder, other), share) for folder, other, share in others]),
        check_scorable(open_tokens(first, "val", manifest)),
        sum(share * part.text_bytes / part.tokens for part, share in shares),
        {str(folder): _describe(other, share) for folder, other, share in others},
    )


def _augmentation(config: TrainConfig, tokenizer: Tokenizer) -> Augmentation:
    data = config.data
    return Augmentation(
        fim=data.fim, repetition=data.stutter, token_boundaries=data.seams, tokenizer=tokenizer,
        fim_ids=tokenizers.fim_ids(tokenizer), line_ends=tokenizers.line_ends(tokenizer),
    )  # fmt: skip


def _describe(manifest: Manifest, share: float) -> dict[str, Any]:
    part = manifest.parts["train"]
    return {"share": share, "documents": part.documents, "tokens": part.tokens, "sources": manifest.groups}
