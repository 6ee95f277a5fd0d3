"""Model files from the Hugging Face hub (extra `[hub]`): download them, resume where that broke off.

What the hub says about names and sizes is checked like any other input: a file never lands outside its folder, and
its size and sha256 must be those announced. A partial download is kept beside its place as `NAME.HASH.part`.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from ternrun.errors import LoadError, MissingExtra, UsageError
from ternrun.loader.hub.file_choice import Choice, RemoteFile, choose
from ternrun.loader.hub.local_models import Download, remember

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@contextmanager
def explained(repo: str, endpoint: str, remedy: str) -> Iterator[None]:
    """Turn what the hub and the network raise into one sentence."""
    from huggingface_hub import errors as hub

    sentences = {
        hub.GatedRepoError: f"{repo} is gated: accept its terms on {endpoint}/{repo} and set HF_TOKEN",
        hub.RepositoryNotFoundError: f"{endpoint} has no repository {repo!r} (a private one needs HF_TOKEN)",
        hub.RevisionNotFoundError: f"{repo} has no such revision",
        hub.HFValidationError: f"a repository is named OWNER/NAME, not {repo!r}",
        hub.OfflineModeIsEnabled: "HF_HUB_OFFLINE is set: nothing can be downloaded",
    }
    try:
        yield
    except Exception as error:
        for kind, sentence in sentences.items():
            if isinstance(error, kind):
                raise UsageError(sentence) from error
        if isinstance(error, hub.HfHubHTTPError):
            raise UsageError(f"{endpoint} answered {error.response.status_code} for {repo}: {remedy}") from error
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise  # the disk, not the network
        if not type(error).__module__.startswith(("http", "requests", "urllib3", "huggingface_hub", "builtins")):
            raise
        raise UsageError(f"the connection to {endpoint} failed ({type(error).__name__}): {remedy}") from error


def pull(
    repo: str,
    file: str | None = None,
    *,
    to: Path,
    revision: str | None = None,
    endpoint: str | None = None,
    force: bool = False,
    quant: str | None = None,
    folder: str | None = None,
    tell: Callable[[Choice, bool], None] = lambda choice, missing: None,
) -> tuple[Path, Choice]:
    """Download a model into the folder `to`; returns the path to load and what was chosen, with the reason.

    `quant` and `folder` narrow the choice as `choose` has it. `tell` is called with the choice, and whether any of
    it has to be downloaded, before that begins. The model is added to the list of downloads. A file that is already
    there with the right content is not downloaded again, and one with other content is not written
    over unless `force` is set.
    `endpoint` defaults to the environment's HF_ENDPOINT, else https://huggingface.co. Raises UsageError (no such
    repository or file, no network, another file in the way), LoadError (content that differs from what was announced),
    MissingExtra, OSError (the disk).
    """
    try:
        from huggingface_hub import HfApi, constants
    except ImportError as error:
        raise MissingExtra("a download from the hub", "hub") from error
    endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
    with explained(repo, endpoint, "check the network, or set HF_ENDPOINT to another hub"):
        info = HfApi(endpoint=endpoint).model_info(repo, revision=revision, files_metadata=True)
    choice = choose([remote_file(s) for s in info.siblings or ()], file, quant=quant, folder=folder)
    base = to / PurePosixPath(repo).name if choice.folder else to
    places = [base / local_name(f.name, whole=choice.folder) for f in choice.files]
    missing = [pair for pair in zip(choice.files, places, strict=True) if not is_there(repo, *pair, force=force)]
    for _, place in missing:
        place.parent.mkdir(parents=True, exist_ok=True)
    tell(choice, bool(missing))
    for remote, place in missing:
        with explained(repo, endpoint, "what has arrived is kept; run the same command again to resume"):
            fetch(repo, info.sha, remote, place, endpoint)
    path = base / local_name(choice.model, whole=True) if choice.folder else places[0]
    remember(Download(repo, choice.model if choice.folder else choice.files[0].name, str(path.resolve()), revision))
    return path, choice


def remote_file(sibling: Any) -> RemoteFile:
    """What the hub says of one file, as our record."""
    digest = sibling.lfs.sha256 if sibling.lfs else None
    return RemoteFile(sibling.rfilename, sibling.size or 0, digest, digest or sibling.blob_id or str(sibling.size))


def local_name(name: str, *, whole: bool) -> PurePosixPath:
    """A repository path, the `whole` or its last part, refused where that is no plain file name."""
    path = PurePosixPath(name) if whole else PurePosixPath(PurePosixPath(name).name)
    if not all(re.fullmatch(r"(?!\.)[\w.+=@() -]+", part) for part in path.parts):
        raise LoadError(f"the repository names a file {name!r}, which is not a safe file name")
    return path


def is_there(repo: str, remote: RemoteFile, place: Path, *, force: bool = False) -> bool:
    """Whether the file need not be downloaded. Raises UsageError where something else has its place."""
    if not place.exists():
        return False
    if place.is_file() and place.stat().st_size == remote.size and intact(place, remote):
        return True
    if not force or not place.is_file():
        remedy = "--force writes over it, --to names another folder"
        raise UsageError(f"{place} is there already, but is not what {repo} has; {remedy}")
    return False


def fetch(repo: str, revision: str | None, remote: RemoteFile, place: Path, endpoint: str) -> None:
    """Download one file to `place` through a `.part` file that a later call continues."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    part = place.with_name(f"{place.name}.{remote.identity[:12]}.part")
    done = part.stat().st_size if part.exists() else 0
    if done > remote.size:
        part.unlink()
        done = 0
    url = hf_hub_url(repo, remote.name, revision=revision, endpoint=endpoint)
    try:
        with part.open("ab") as out:
            http_get(
                url,
                out,
                resume_size=done,
                headers=build_hf_headers(),
                expected_size=remote.size,
                displayed_filename=place.name,
            )
    except OSError as error:
        if error.errno in DISK:  # writing names no file, by which `explained` knows the disk from the network
            raise OSError(error.errno, error.strerror, str(part)) from error
        raise
    if not intact(part, remote):
        part.unlink()
        raise LoadError(
            f"{remote.name} arrived damaged (its sha256 differs from the hub's) and was deleted: pull again"
        )
    part.replace(place)


def intact(path: Path, remote: RemoteFile) -> bool:
    """Whether the file holds what the hub announced, as far as the hub tells."""
    if remote.digest is None:
        return path.stat().st_size == remote.size
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == remote.digest
