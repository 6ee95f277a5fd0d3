"""Models on this machine that came from the hub: downloads, which a list names, and the hub's own cache."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ternrun.errors import UsageError
from ternrun.loader.hub.file_choice import RemoteFile, choose, is_type
from ternrun.loader.hub.reference import Reference

LIST = "downloads.jsonl"


@dataclass(frozen=True, slots=True)
class Download:
    """One line of the list: `file` is the name in the repository, `path` what to load here."""

    repo: str
    file: str
    path: str
    revision: str | None = None


def models_folder() -> Path:
    """Where downloads go that name no folder: TERNRUN_MODELS, else `models` in the cache folder."""
    from ternrun.runtime.cpu.compile.cache_files import cache_root  # it brings the CPU's backend with it

    named = os.environ.get("TERNRUN_MODELS")
    return Path(named).expanduser() if named else cache_root() / "models"


def remember(download: Download) -> None:
    """Add a line to the list. A list that cannot be written is left: the model is found again by its path."""
    with suppress(OSError):
        models_folder().mkdir(parents=True, exist_ok=True)
        known = [one for one in downloads() if one.path != download.path]
        lines = "".join(json.dumps(asdict(one)) + "\n" for one in [*known, download])
        beside = models_folder() / f".{LIST}.{os.getpid()}"
        beside.write_text(lines, "utf-8")
        beside.replace(models_folder() / LIST)


def downloads() -> list[Download]:
    """Downloads that are still there, oldest first. Damaged lines count as absent."""
    found = []
    try:
        lines = (models_folder() / LIST).read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return []
    for line in lines:
        with suppress(ValueError, TypeError):
            one = Download(**json.loads(line))
            if Path(one.path).exists():
                found.append(one)
    return found


def hub_folder() -> Path:
    """The hub's cache, by the variables that huggingface_hub reads."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := os.environ.get(name):
            return Path(named).expanduser()
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(home).expanduser() / "hub"


def snapshots() -> Iterator[tuple[str, Path]]:
    """Repositories in the hub's cache, each with the folder of its newest snapshot."""
    with suppress(OSError, RuntimeError):  # RuntimeError: no home
        for folder in sorted(hub_folder().glob("models--*--*")):
            owner, _, name = folder.name.removeprefix("models--").partition("--")
            found = [path for path in folder.glob("snapshots/*") if path.is_dir()]
            if found:
                yield f"{owner}/{name}", max(found, key=lambda path: path.stat().st_mtime)


def snapshot_models(folder: Path, wanted: Reference) -> Path | None:
    """What to load of a snapshot, by the rule of `pull`; None where it is not there."""
    files = [
        RemoteFile(path.relative_to(folder).as_posix(), path.stat().st_size, None, "")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    try:
        choice = choose(files, wanted.file, quant=wanted.quant, folder=wanted.folder)
    except UsageError:
        return None
    return folder / (choice.model if choice.folder else choice.files[0].name)


def find(wanted: Reference) -> Path | None:
    """Where the model lies on this machine: a download first, the hub's cache else; None where it does not."""
    for one in reversed(downloads()):
        if one.repo == wanted.repo and _is_wanted(one, wanted):
            return Path(one.path)
    with suppress(OSError):
        for repo, folder in snapshots():
            if repo == wanted.repo and wanted.revision in (None, "main", folder.name):
                found = snapshot_models(folder, wanted)
                if found is not None:
                    return found
    return None


def _is_wanted(one: Download, wanted: Reference) -> bool:
    if wanted.revision not in (None, "main", one.revision):
        return False
    if wanted.quant not in (None, "latest") and not is_type(one.file, wanted.quant):
        return False
    if wanted.folder and not one.file.startswith(f"{wanted.folder}/"):
        return False
    return wanted.file in (None, one.file)
