"""What a run reads: the data folder that its config names, folders mixed into that, and the part that validates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from tokenizers import Tokenizer

from ternrun.errors import ConfigError
from ternrun.train.config import TrainConfig
from ternrun.train.data import tokenizer as tokenizers
from ternrun.train.data.mixture import Mixture
from ternrun.train.data.token_file import Manifest, open_tokens, read_manifest, tokenizer_of
from ternrun.train.data.windows import Windows, scorable


@dataclass(frozen=True, slots=True)
class Corpus:
    """Token files of one tokenizer; `manifest` and `val` are the first folder's."""

    manifest: Manifest
    tokenizer: Tokenizer
    train: Mixture
    val: NDArray[Any]
    bytes_per_token: float  # of what `train` gives
    mixed: dict[str, Any]  # by folder: share, documents, tokens and sources of folders beside the first; plain JSON


def open_corpus(config: TrainConfig) -> Corpus:
    """Raises LoadError for damaged data, ConfigError where a folder that is mixed in has another tokenizer."""
    data, first = config.data, Path(config.data.path)
    manifest = read_manifest(first)
    tokenizer = tokenizer_of(first, manifest)
    others = [(Path(folder), read_manifest(Path(folder)), share) for folder, share in data.mix.items()]
    for folder, other, _ in others:
        if other.tokenizer_sha256 != manifest.tokenizer_sha256:
            remedy = f"make one of them with `--tokenizer {first / 'tokenizer.json'}`"
            raise ConfigError(f"{folder} has another tokenizer than {first}: {remedy}")

    def windows(folder: Path, manifest: Manifest) -> Windows:
        return Windows(
            open_tokens(folder, "train", manifest), config.model.context, config.run.seed,
            fim=data.fim, fim_ids=tokenizers.fim_ids(tokenizer), stutter=data.stutter, seams=data.seams,
            tokenizer=tokenizer, line_ends=tokenizers.line_ends(tokenizer),
        )  # fmt: skip

    shares = [(manifest.parts["train"], 1 - sum(data.mix.values()))]
    shares += [(other.parts["train"], share) for _, other, share in others]
    return Corpus(
        manifest,
        tokenizer,
        Mixture(windows(first, manifest), [(windows(folder, other), share) for folder, other, share in others]),
        scorable(open_tokens(first, "val", manifest)),
        sum(share * part.text_bytes / part.tokens for part, share in shares),
        {str(folder): _told(other, share) for folder, other, share in others},
    )


def note_mixture(state: dict[str, Any], mixed: dict[str, Any]) -> None:
    """Keep in a run's state from which step on which folders were mixed in."""
    phases = state.setdefault("mixed", [])
    if mixed != (phases[-1]["folders"] if phases else {}):
        phases.append({"step": state["step"], "folders": mixed})


def _told(manifest: Manifest, share: float) -> dict[str, Any]:
    part = manifest.parts["train"]
    return {"share": share, "documents": part.documents, "tokens": part.tokens, "sources": manifest.groups}
