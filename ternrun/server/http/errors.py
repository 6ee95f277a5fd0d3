"""Errors as HTTP status and OpenAI's error object. They never contain a prompt or a key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from ternrun.errors import ConfigError, ContextError, LoadError, TemplateError, UsageError

log = logging.getLogger("ternrun.server")
REASON: web.RequestKey[str] = web.RequestKey("reason", str)  # why a request was refused, for the log
TGI = ("/", "/generate", "/generate_stream", "/info")  # text-generation-inference has another shape of errors
MAX_REASON = 300  # characters

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    405: "invalid_request_error", 408: "timeout_error", 413: "invalid_request_error", 415: "invalid_request_error",
    429: "rate_limit_error", 501: "not_supported_error", 503: "unavailable_error", 504: "timeout_error",
}  # fmt: skip


_ENGINE_FIELDS = {  # its names -> ours
    "prompt": "prompt", "logit_bias": "logit_bias", "stop_ids": "stop_token_ids",
    "allowed_token_ids": "allowed_token_ids",
}  # fmt: skip


class ApiError(Exception):
    """An error response. `param` names the field, `code` is for programs, `more` adds or replaces keys."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | int | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code
        self.headers, self._more = dict(headers or {}), dict(more or {})

    @property
    def body(self) -> dict[str, Any]:
        """{"error": {"message", "type", "param", "code"}}."""
        kind = TYPES.get(self.status, "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code, **self._more}}


def wrong(where: str, why: str, *, code: str | None = None) -> ApiError:
    """The error for the value at `where`, the path of a field in the body."""
    return ApiError(f"{where}: {why}", param=where, code=code)


def shutting_down() -> ApiError:
    """The error for requests that arrive or wait while the server closes."""
    return ApiError("the server is shutting down", status=503, code=503, headers={"Retry-After": "5"})


def explain(error: Exception) -> ApiError:
    """The error response for any exception. Internal errors go to the log without details for the client."""
    match error:
        case ApiError():
            return error
        case ContextError():
            found = {"n_prompt_tokens": error.tokens, "n_ctx": error.context}  # as llama.cpp's clients read them
            more = {"type": "exceed_context_size_error", **found}
            # clients that shorten a conversation and ask again know llama.cpp's words
            told = f"{error}; it exceeds the available context size"
            return ApiError(told, param="prompt", code="context_length_exceeded", more=more)
        case ConfigError() | UsageError() | TemplateError():
            return ApiError(str(error), param=_field(str(error)))
        case TimeoutError():
            return ApiError("the request took longer than this server allows", status=504, code="timeout")
        case web.HTTPRequestEntityTooLarge():
            return ApiError("the request's body is larger than this server allows", status=413)
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            message = f"this route takes {allowed} only"
            return ApiError(message, status=405, headers={"Allow": allowed})
        case web.HTTPException():
            reason = "there is no such route; /openapi.json lists them" if error.status == 404 else error.reason
            return ApiError(reason, status=error.status)
        case LoadError():  # damaged weights show when they run
            return ApiError(str(error), status=500)
    log.error("a fault of ours", exc_info=error)
    return ApiError("a fault of the server, which its log tells of", status=500)


def _field(message: str) -> str | None:
    """The field that the engine names at the beginning of a message."""
    name, colon, _ = message.partition(": ")
    return _ENGINE_FIELDS.get(name) if colon else None


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Middleware that turns exceptions of handlers into responses."""
    try:
        return await handler(request)
    except ConnectionError:  # the client is gone: no fault, so aiohttp must not log it as one
        raise asyncio.CancelledError from None
    except Exception as error:
        problem = explain(error)
        body = problem.body
        request[REASON] = problem.message[:MAX_REASON]
        if request.path in TGI:
            body = {"error": problem.message, "error_type": "validation" if problem.status < 500 else "generation"}
        elif request.path.startswith("/api/"):
            body = {"error": problem.message}  # Ollama's shape
        elif request.path.startswith("/v1/messages"):
            body = {"type": "error", **body}  # Anthropic's
        return web.json_response(body, status=problem.status, headers=problem.headers)
