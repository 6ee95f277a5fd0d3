"""GET / and GET /page/NAME: a page to try the model, and its files. It loads nothing from anywhere else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources
from importlib.resources.abc import Traversable

from aiohttp import web

from ternrun.server.generation.service import Service
from ternrun.server.http.errors import ApiError

FOLDER = "/page/"
_TYPES = {
    "html": "text/html", "css": "text/css", "js": "text/javascript", "mjs": "text/javascript", "svg": "image/svg+xml",
}  # fmt: skip
_HEADERS = {
    "Cache-Control": "no-cache",  # the browser asks each time, and an unchanged file is not sent again
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types dompurify"  # markup is made by the sanitizer alone
    ),
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    type: str
    digest: str


@cache
def _files() -> dict[str, _File]:
    """By the names that the page uses: `main.js`, `vendor/marked/LICENSE`."""
    return dict(_below(resources.files("ternrun.server") / "web", ""))


def _below(folder: Traversable, path: str) -> list[tuple[str, _File]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _below(entry, f"{path}{entry.name}/")
        else:
            body, suffix = entry.read_bytes(), entry.name.rpartition(".")[2]
            found.append((path + entry.name, _File(body, _TYPES.get(suffix, "text/plain"), sha256(body).hexdigest())))
    return found


async def page(request: web.Request, _service: Service) -> web.Response:
    """The page; it needs no key, what it asks for does."""
    return _answer(request, "index.html")


async def part(request: web.Request, _service: Service) -> web.Response:
    """A script, a style or a licence of the page."""
    return _answer(request, request.match_info["name"])


def _answer(request: web.Request, name: str) -> web.Response:
    file = _files().get(name)
    if file is None:
        raise ApiError("the page has no such file", status=404)
    headers = _HEADERS | {"ETag": f'"{file.digest}"'}
    if any(tag.value in (file.digest, "*") for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=file.body, content_type=file.type, charset="utf-8", headers=headers)
