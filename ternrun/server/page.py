"""GET /: one page to try the model, complete in itself: it loads nothing from anywhere."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib import resources

from aiohttp import web

from ternrun.server.service import Service

_HTML = (resources.files("ternrun.server") / "web" / "index.html").read_text("utf-8")


def _allowed(tag: str) -> str:
    """The one script or style of the page, by its digest: nothing else may run there."""
    inline = _HTML.split(f"<{tag}>")[1].split(f"</{tag}>")[0]
    return f"'sha256-{b64encode(sha256(inline.encode()).digest()).decode()}'"


_POLICY = (
    f"default-src 'none'; script-src {_allowed('script')}; style-src {_allowed('style')}; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def page(_request: web.Request, _service: Service) -> web.Response:
    """The page; it needs no key, what it asks for does."""
    return web.Response(text=_HTML, content_type="text/html", headers={"Content-Security-Policy": _POLICY})
