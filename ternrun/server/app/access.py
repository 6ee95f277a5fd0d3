"""Who may ask: API keys, origins of web pages, names of this machine.

A page that a browser shows can send requests to servers on the same machine. One whose origin is not this server's own
(or a name that --cors allows) is refused, and a name that merely resolves to this machine (DNS rebinding) is, too.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from ternrun.server.app.page import FOLDER
from ternrun.server.http.errors import ApiError, Handler
from ternrun.server.settings import ServerConfig, hosts

HEALTH = ("/health", "/v1/health", "/ping")
PUBLIC = ("/", *HEALTH)  # what GET finds there tells nothing that a key protects
ALLOWED: web.RequestKey[str] = web.RequestKey("origin", str)


def keys(config: ServerConfig) -> Middleware:
    """Refuses requests without one of the API keys; takes the same time whatever the key given."""
    known = [sha256(key.encode()).digest() for key in config.api_keys]

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if known and not _public(request) and request.method != "OPTIONS":
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            given = token.strip() if scheme.lower() == "bearer" else request.headers.get("X-Api-Key", "")
            digest = sha256(given.encode("utf-8", "surrogateescape")).digest()
            if not sum(hmac.compare_digest(digest, key) for key in known):  # every key is compared
                raise ApiError(
                    "a valid API key is needed: Authorization: Bearer KEY",
                    status=401, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"},
                )  # fmt: skip
        return await handler(request)

    return check


def _public(request: web.Request) -> bool:
    if request.method not in ("GET", "HEAD"):
        return False
    return request.path in PUBLIC or request.path.startswith(FOLDER)


def origins(config: ServerConfig) -> Middleware:
    """Refuses web pages of other origins but those allowed, whose preflights it answers."""
    local = bool(config.unix_socket) or all(_is_local(host) for host in hosts(config))

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if local and not config.api_keys and not _known_host(request.host, config):
            raise ApiError("this server does not go by that name; start it with --allow-host NAME", status=403)
        origin = request.headers.get("Origin")
        if origin is None or (request.host and _authority(origin) == request.host):
            return await handler(request)
        if not _allowed(origin, config):
            raise ApiError("pages of this origin may not ask; start the server with --cors ORIGIN", status=403)
        request[ALLOWED] = origin
        if request.method != "OPTIONS":
            return await handler(request)
        asked = request.headers.get("Access-Control-Request-Headers", "")
        return web.Response(
            headers={"Access-Control-Allow-Methods": "GET, POST", "Access-Control-Allow-Headers": asked[:1000]},
        )

    return check


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """A signal of aiohttp, before the headers of any answer go out, streams and refusals included."""
    response.headers["X-Content-Type-Options"] = "nosniff"
    if ALLOWED in request:
        response.headers["Access-Control-Allow-Origin"] = request[ALLOWED]
        response.headers["Vary"] = "Origin"


def _is_local(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _allowed(origin: str, config: ServerConfig) -> bool:
    if "localhost" in config.cors and _is_local(_host(_authority(origin))):
        return True
    return "*" in config.cors or origin in config.cors


def _authority(url: str) -> str:
    """Host and port; empty where it is no address."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _host(authority: str) -> str:
    """The host alone, in lower case; empty where it is none."""
    try:
        parts = urlsplit(f"//{authority}")
    except ValueError:
        return ""
    return parts.hostname or "" if parts.netloc == authority and parts.username is None else ""


def _known_host(host: str, config: ServerConfig) -> bool:
    """Whether a Host header names this machine in a way that nobody else's DNS server decides about."""
    name = _host(host)
    if not host or name == "localhost" or name.endswith(".localhost") or name in config.allow_hosts:
        return True
    try:
        ip_address(name)
    except ValueError:
        return config.unix_socket != "" or name in hosts(config)
    return True
