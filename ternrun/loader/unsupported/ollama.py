"""Ollama's store: a manifest names a model's file by its digest, and the file lies among the blobs."""

from __future__ import annotations

import json
import re
from pathlib import Path


def blob_of(path: Path, manifest: bytes) -> Path | None:
    """The file of the model that the manifest at `path` names; None where the store has none such."""
    try:
        layers = json.loads(manifest)["layers"]
        digest = next(str(e["digest"]) for e in layers if e["mediaType"] == "application/vnd.ollama.image.model")
    except (ValueError, TypeError, KeyError, StopIteration, RecursionError):
        return None
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        return None
    stores = (above.parent for above in path.absolute().parents if above.name == "manifests")
    places = (store / "blobs" / digest.replace(":", "-") for store in stores)
    return next((place for place in places if place.is_file()), None)
