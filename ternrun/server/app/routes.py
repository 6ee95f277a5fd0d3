"""The table of routes, and the application around it."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Middleware

from ternrun.server.anthropic import messages
from ternrun.server.app import access, health, log, openapi, page
from ternrun.server.generation.metrics import Metrics
from ternrun.server.generation.models import SERVICES, SHOW, ModelServices, Route, serving
from ternrun.server.http import errors
from ternrun.server.http.write_timeout import write_timeout
from ternrun.server.llamacpp import completion, slot_persistence, tokenize
from ternrun.server.llamacpp import embeddings as llamacpp_embeddings
from ternrun.server.llamacpp.server_info import props, slots
from ternrun.server.ollama import embeddings as ollama_embeddings
from ternrun.server.ollama import generate as ollama_generate
from ternrun.server.ollama import library
from ternrun.server.openai import chat, completions, embeddings, models, responses
from ternrun.server.tgi import generate as tgi_generate

ROUTES: tuple[tuple[str, str, Route], ...] = (
    ("GET", "/", page.page),
    ("GET", "/page/{name:.+}", page.part),
    ("POST", "/v1/completions", completions.completions),
    ("POST", "/v1/chat/completions", chat.chat_completions),
    ("POST", "/v1/chat/completions/input_tokens", chat.input_tokens),
    ("POST", "/v1/embeddings", embeddings.embeddings),
    ("POST", "/v1/responses", responses.responses),
    ("POST", "/v1/responses/input_tokens", responses.input_tokens),
    ("POST", "/v1/messages", messages.messages),
    ("POST", "/v1/messages/count_tokens", messages.count_tokens),
    ("GET", "/v1/models", models.models),
    ("GET", "/models", models.models),
    ("GET", "/v1/models/{name:.+}", models.one_model),
    ("GET", "/health", health.health),
    ("GET", "/v1/health", health.health),
    ("GET", "/ping", health.health),
    ("POST", "/completion", completion.completion),
    ("POST", "/completions", completion.completion),
    ("POST", "/chat/completions", chat.chat_completions),
    ("POST", "/chat/completions/input_tokens", chat.input_tokens),
    ("POST", "/infill", completion.infill),
    ("POST", "/embedding", llamacpp_embeddings.embeddings),
    ("POST", "/embeddings", llamacpp_embeddings.embeddings),
    ("POST", "/tokenize", tokenize.tokenize),
    ("POST", "/detokenize", tokenize.detokenize),
    ("GET", "/tokenizer_info", tokenize.tokenizer_info),
    ("POST", "/apply-template", tokenize.apply_template),
    ("GET", "/version", health.version),
    ("POST", "/generate", tgi_generate.generate),
    ("POST", "/generate_stream", tgi_generate.generate_stream),
    ("POST", "/", tgi_generate.root),
    ("GET", "/info", tgi_generate.info),
    ("GET", "/props", props),
    ("GET", "/slots", slots),
    ("POST", "/slots/{id}", slot_persistence.slot_action),
    ("GET", "/metrics", health.metrics),
    ("GET", "/openapi.json", openapi.openapi),
    ("POST", "/api/generate", ollama_generate.generate),
    ("POST", "/api/chat", ollama_generate.chat),
    ("POST", "/api/embed", ollama_embeddings.embed),
    ("POST", "/api/embeddings", ollama_embeddings.embeddings),
    ("GET", "/api/tags", library.tags),
    ("GET", "/api/ps", library.ps),
    ("POST", SHOW, library.show),
    ("GET", "/api/version", library.version),
)


def make_app(services: ModelServices) -> web.Application:
    """The application; the outermost middleware comes first."""
    config = services.config
    checks = [access.origins(config), access.keys(config)]
    around = [log.access_log(config), _counting(services.metrics), errors.errors, write_timeout(config.stall)]
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
    async def count(request: web.Request, handler: errors.Handler) -> web.StreamResponse:
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
