"""The table of routes, and the application around it."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Middleware

from ternrun.server import (
    access,
    anthropic,
    chat,
    completions,
    embeddings,
    library,
    llama,
    log,
    ollama,
    openapi,
    page,
    problems,
    responses,
    saving,
    tgi,
    tokens,
    tools,
)
from ternrun.server.metrics import Metrics
from ternrun.server.models import SERVICES, SHOW, Route, Services, serving
from ternrun.server.patience import patience

ROUTES: tuple[tuple[str, str, Route], ...] = (
    ("GET", "/", page.page),
    ("GET", "/page/{name:.+}", page.part),
    ("POST", "/v1/completions", completions.completions),
    ("POST", "/v1/chat/completions", chat.chat_completions),
    ("POST", "/v1/chat/completions/input_tokens", chat.input_tokens),
    ("POST", "/v1/embeddings", embeddings.openai),
    ("POST", "/v1/responses", responses.responses),
    ("POST", "/v1/responses/input_tokens", responses.input_tokens),
    ("POST", "/v1/messages", anthropic.messages),
    ("POST", "/v1/messages/count_tokens", anthropic.count_tokens),
    ("GET", "/v1/models", tools.models),
    ("GET", "/models", tools.models),
    ("GET", "/v1/models/{name:.+}", tools.one_model),
    ("GET", "/health", tools.health),
    ("GET", "/v1/health", tools.health),
    ("GET", "/ping", tools.health),
    ("POST", "/completion", llama.completion),
    ("POST", "/completions", llama.completion),
    ("POST", "/chat/completions", chat.chat_completions),
    ("POST", "/chat/completions/input_tokens", chat.input_tokens),
    ("POST", "/infill", llama.infill),
    ("POST", "/embedding", embeddings.llama),
    ("POST", "/embeddings", embeddings.llama),
    ("POST", "/tokenize", tokens.tokenize),
    ("POST", "/detokenize", tokens.detokenize),
    ("GET", "/tokenizer_info", tokens.tokenizer_info),
    ("POST", "/apply-template", tokens.apply_template),
    ("GET", "/version", tools.version),
    ("POST", "/generate", tgi.generate),
    ("POST", "/generate_stream", tgi.generate_stream),
    ("POST", "/", tgi.root),
    ("GET", "/info", tgi.info),
    ("GET", "/props", tools.props),
    ("GET", "/slots", tools.slots),
    ("POST", "/slots/{id}", saving.slot_action),
    ("GET", "/metrics", tools.metrics),
    ("GET", "/openapi.json", openapi.openapi),
    ("POST", "/api/generate", ollama.generate),
    ("POST", "/api/chat", ollama.chat),
    ("POST", "/api/embed", embeddings.ollama),
    ("POST", "/api/embeddings", embeddings.ollama_one),
    ("GET", "/api/tags", library.tags),
    ("GET", "/api/ps", library.ps),
    ("POST", SHOW, library.show),
    ("GET", "/api/version", library.version),
)


def make_app(services: Services) -> web.Application:
    """The application; the outermost middleware comes first."""
    config = services.config
    checks = [access.origins(config), access.keys(config)]
    around = [log.access_log(config), _counting(services.metrics), problems.errors, patience(config.stall)]
    app = web.Application(
        middlewares=[*around, *checks],
        client_max_size=config.max_body,
    )
    app[SERVICES] = services
    app.on_response_prepare.append(access.add_headers)
    app.on_response_prepare.append(log.add_headers)
    for method, path, route in ROUTES:
        if route in (page.page, page.part) and not config.page:
            continue
        add = app.router.add_get if method == "GET" else app.router.add_post  # the former adds HEAD, too
        add(path, serving(route))
    return app


def _counting(metrics: Metrics) -> Middleware:
    @web.middleware
    async def count(request: web.Request, handler: problems.Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = resource.canonical if resource else "none"  # not the path: anybody can make up paths
        status = 499
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            metrics.requests.labels(route, str(status)).inc()

    return count
