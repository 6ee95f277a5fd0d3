"""GET /: one page to try the model, complete in itself: it loads nothing from anywhere."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib import resources

from aiohttp import web

from ternrun.server.service import Service

_FOLDER = resources.files("ternrun.server") / "web"
SCRIPTS = ("client.js", "tokens.js", "page.js")


def _read(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8")


def _allowed(inline: str) -> str:
    """The one script or style of the page, by its digest: nothing else may run there."""
    return f"'sha256-{b64encode(sha256(inline.encode()).digest()).decode()}'"


_STYLE = _read("page.css")
_SCRIPT = "\n".join(['"use strict";', "const $ = id => document.getElementById(id);", *map(_read, SCRIPTS)])
_HTML = (
    _read("index.html")
    .replace("<style></style>", f"<style>{_STYLE}</style>")
    .replace("<script></script>", f"<script>{_SCRIPT}</script>")
)
_POLICY = (
    f"default-src 'none'; script-src {_allowed(_SCRIPT)}; style-src {_allowed(_STYLE)}; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def page(_request: web.Request, _service: Service) -> web.Response:
    """The page; it needs no key, what it asks for does."""
    return web.Response(text=_HTML, content_type="text/html", headers={"Content-Security-Policy": _POLICY})
