"""A download from the Hugging Face hub, as the user sees it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from ternrun.commands.terminal import safe, size
from ternrun.loader.hub.download import pull
from ternrun.loader.hub.file_choice import Choice
from ternrun.loader.hub.reference import Reference


def downloaded(wanted: Reference, to: Path, *, force: bool = False) -> Path:
    """Download a model into a folder, and say first what was chosen; returns the path to load. Raises as `hub.pull`."""
    logging.getLogger("huggingface_hub.file_download").setLevel(logging.ERROR)  # what is final, it raises
    path, _ = pull(
        wanted.repo,
        wanted.file,
        to=to,
        revision=wanted.revision,
        quant=wanted.quant,
        folder=wanted.folder,
        tell=_tell,
        force=force,
    )
    return path


def _tell(choice: Choice, missing: bool) -> None:
    names = choice.files[0].name + (f" and {len(choice.files) - 1} more" if len(choice.files) > 1 else "")
    total = size(sum(f.size for f in choice.files))
    doing = "downloading" if missing else "here already:"
    sys.stderr.write(safe(f"ternrun: {doing} {names}, {total} ({choice.reason})\n"))
    sys.stderr.flush()
