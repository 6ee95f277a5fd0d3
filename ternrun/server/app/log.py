"""The log: a line of JSON for each request, and one for each field that has no effect here. Prompts, answers, queries,
headers and keys are never logged."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Middleware

from ternrun.server.app.access import HEALTH
from ternrun.server.app.page import FOLDER
from ternrun.server.fields import ignored
from ternrun.server.fields.ignored import IgnoredFields
from ternrun.server.generation.submission import TOKEN_COUNTS
from ternrun.server.http.errors import REASON, Handler
from ternrun.server.settings import ServerConfig

log = logging.getLogger("ternrun.access")

ID: web.RequestKey[str] = web.RequestKey("id", str)
IGNORED: web.RequestKey[IgnoredFields] = web.RequestKey("ignored", IgnoredFields)

ID_HEADER = "X-Request-Id"
MOST_NOTED = 1024  # names of ignored fields that are logged: names that clients make up cannot fill the log
_SAFE_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")


def access_log(config: ServerConfig) -> Middleware:
    """A line for each request but those for health and the page's files, with its id and the reason of a refusal."""
    noted: set[str] = set()

    @web.middleware
    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[TOKEN_COUNTS] = {}
        request[ID] = _identity(request.headers.get(ID_HEADER, ""))
        request[IGNORED] = ignored.begin(strict=config.strict)
        start, status = time.perf_counter(), 499  # the client went away
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            for name, meant in request[IGNORED].names.items():
                if name not in noted and len(noted) < MOST_NOTED:
                    noted.add(name)
                    log.info(json.dumps(_note(request, name, meant)))
            if request.path not in HEALTH and not request.path.startswith(FOLDER):
                log.info(json.dumps(_line(request, status, time.perf_counter() - start)))

    return around


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """A signal of aiohttp, before the headers of any answer go out, streams and refusals included."""
    if ID in request:
        response.headers[ID_HEADER] = request[ID]
    if IGNORED in request and request[IGNORED].names:
        response.headers[ignored.HEADER] = request[IGNORED].header


class Unreadable(logging.Filter):
    """Requests that are no HTTP are their sender's fault: a line in the log takes the place of aiohttp's traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drops what `access_log` logs already."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, web.RequestPayloadError):
            return False
        if isinstance(error, HttpProcessingError):
            remote = record.args[0] if isinstance(record.args, tuple) and record.args else ""
            record.msg = json.dumps({"time": _now(), "remote": str(remote), "status": 400})
            record.args, record.exc_info = (), None
            record.levelno, record.levelname = logging.INFO, "INFO"
        return True


def _identity(given: str) -> str:
    """The client's own id of a request where it is safe to repeat, else a new one."""
    return given if _SAFE_ID.fullmatch(given) else uuid.uuid4().hex


def _line(request: web.Request, status: int, seconds: float) -> dict[str, Any]:
    line = {
        "time": _now(),
        "remote": request.remote or "",
        "method": request.method,
        "path": request.path[:200],
        "status": status,
        "seconds": round(seconds, 4),
        "request_id": request[ID],
    }
    return line | ({"error": request[REASON]} if REASON in request else {}) | request[TOKEN_COUNTS]


def _note(request: web.Request, name: str, meant: str) -> dict[str, Any]:
    """A field without effect, the first time that a request has it."""
    note = {"time": _now(), "path": request.path[:200], "request_id": request[ID], "ignored": name}
    return note | ({"did_you_mean": meant} if meant else {})


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
