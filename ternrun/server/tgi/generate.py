"""text-generation-inference's POST /generate, /generate_stream and /, and GET /info, for Hugging Face's clients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ternrun.runtime.config import SamplingParams
from ternrun.runtime.engine.request import Request
from ternrun.server.fields import response_format
from ternrun.server.fields.reading import FieldTable, boolean, integer, nested, stop_strings, string
from ternrun.server.fields.sampling import OPENAI_PENALTY, needed
from ternrun.server.fields.sampling_params import READERS, UNLIMITED, sampling_fields
from ternrun.server.fields.unsupported import MODEL, TGI_CONSTRAINTS, TGI_HINTS
from ternrun.server.generation.answer import Answer, Token, Update
from ternrun.server.generation.prompts import encode
from ternrun.server.generation.request_fields import read_fields
from ternrun.server.generation.service import Service
from ternrun.server.generation.submission import TOKEN_COUNTS, submit_requests
from ternrun.server.generation.token_text import bounded, spell
from ternrun.server.http.errors import ApiError
from ternrun.server.http.stream import UNENDED, Items, stream
from ternrun.server.version import server_version

if TYPE_CHECKING:
    from ternrun.api import Model
    from ternrun.loader.tokenizers.tokenizer import Tokenizer

PARAMETERS = FieldTable(
    read={
        "max_new_tokens": (integer(1, UNLIMITED), 100),
        "do_sample": (boolean, False),
        **sampling_fields("stop", "seed", temperature=None, top_k=None, top_p=None, typical_p=None),
        "repetition_penalty": (READERS["repeat_penalty"], 1.0),
        "frequency_penalty": OPENAI_PENALTY,
        "stop_sequences": (stop_strings, ()),
        "return_full_text": (boolean, False),
        "truncate": (integer(1, UNLIMITED), None),
        "details": (boolean, False),
        "decoder_input_details": (boolean, False),
        "top_n_tokens": (integer(0, 100), 0),
        "grammar": (partial(response_format.response_format, field="parameters.grammar"), None),
    },
    hints=TGI_HINTS,
    constraints=TGI_CONSTRAINTS,
)
GENERATE = FieldTable(
    read={
        "inputs": (string, None),
        "parameters": (nested(PARAMETERS, "parameters"), None),
        "stream": (boolean, False),
    },
    hints=MODEL,
)
REASONS = {"length": "length", "stop": "eos_token"}


async def generate(request: web.Request, service: Service) -> web.StreamResponse:
    """Continue a text, as text-generation-inference does."""
    return await _answer(request, service, streamed=False)


async def generate_stream(request: web.Request, service: Service) -> web.StreamResponse:
    """Continue a text, an event for each token."""
    return await _answer(request, service, streamed=True)


async def root(request: web.Request, service: Service) -> web.StreamResponse:
    """The same by `stream`; the answer is a list with one text."""
    return await _answer(request, service, streamed=None)


async def info(_request: web.Request, service: Service) -> web.Response:
    """What is served, and its limits."""
    model = service.model
    return web.json_response({
        "model_id": service.name, "model_sha": None, "model_dtype": model.encoding, "model_device_type": "cpu",
        "model_pipeline_tag": "text-generation", "max_concurrent_requests": service.config.queue, "max_best_of": 1,
        "max_stop_sequences": 64, "max_input_tokens": model.context - 1, "max_total_tokens": model.context,
        "router": "ternrun", "version": server_version(), "sha": None, "docker_label": None,
    })  # fmt: skip


async def _answer(request: web.Request, service: Service, *, streamed: bool | None) -> web.StreamResponse:
    """`streamed`: None where the body decides."""
    values = await read_fields(request, service, GENERATE)
    asked = values["parameters"] or PARAMETERS.parse({}, defaults=service.defaults, within="parameters")
    source = asked["grammar"]
    start = source and await service.compile(source.kind, source.text, f"parameters.grammar{source.at}")
    ids = await service.read(request, partial(_ids, service.model, needed(values, "inputs"), asked["truncate"]))
    scored = 0 if asked["decoder_input_details"] else None
    one = Request(ids, _params(asked), scored, constraint=start)
    if values["stream"] if streamed is None else streamed:
        return await stream(
            request, _events(service, one, values["inputs"], asked, request), service.config.stall, UNENDED
        )
    with submit_requests(service, [one], request[TOKEN_COUNTS]) as answers:
        said = _Said(answers.all[0], service.model.tokenizer, values["inputs"], asked)
        async for _, update in answers.updates():
            said.add(update)
    told: dict[str, Any] = {"generated_text": said.text}
    if asked["details"] or asked["decoder_input_details"]:
        told["details"] = said.details | said.listed
    return web.json_response([told] if streamed is None else told)


async def _events(service: Service, one: Request, prompt: str, asked: dict[str, Any], request: web.Request) -> Items:
    held: dict[str, Any] | None = None
    with submit_requests(service, [one], request[TOKEN_COUNTS]) as answers:
        said = _Said(answers.all[0], service.model.tokenizer, prompt, asked)
        async for _, update in answers.updates():
            for token in said.add(update):
                if held:
                    yield held
                held = {"index": token["index"], "token": token["token"], "generated_text": None, "details": None}
                if asked["top_n_tokens"]:
                    held["top_tokens"] = token["top_tokens"]
    if held is None:
        raise ApiError("no token could be generated", status=500)
    yield held | {"generated_text": said.text, "details": said.details}


class _Said:
    """What an answer says, in the words of text-generation-inference."""

    def __init__(self, answer: Answer, tokenizer: Tokenizer, prompt: str, asked: dict[str, Any]) -> None:
        self._answer, self._tokenizer, self._asked = answer, tokenizer, asked
        self._prefix = prompt if asked["return_full_text"] else ""
        self._said = ""
        self._told = 0  # characters that belong to tokens by now
        self._prompt: list[Any] = []
        self._tokens: list[dict[str, Any]] = []

    @property
    def text(self) -> str:
        """The whole text."""
        return self._prefix + self._said

    @property
    def details(self) -> dict[str, Any]:
        """How it ended."""
        reason = "stop_sequence" if self._answer.stopping_word else REASONS[self._answer.reason or "stop"]
        request = self._answer.request
        counts = {"generated_tokens": self._answer.generated, "input_length": len(request.ids)}
        return {"finish_reason": reason, **counts, "seed": request.params.seed}

    @property
    def listed(self) -> dict[str, Any]:
        """All tokens, and those of the prompt where they are asked for."""
        ids = self._answer.request.ids if self._asked["decoder_input_details"] else []
        likely = [None, *(bounded(entry.logprob) for entry in self._prompt)]
        prefill = [
            {"id": token, "text": spell(self._tokenizer, token), "logprob": likely[i]} for i, token in enumerate(ids)
        ]
        top = {"top_tokens": [t["top_tokens"] for t in self._tokens]} if self._asked["top_n_tokens"] else {}
        return {"prefill": prefill, "tokens": [t["token"] for t in self._tokens], **top}

    def add(self, update: Update) -> Sequence[dict[str, Any]]:
        """The tokens that this update makes certain."""
        self._said += update.text
        self._prompt += update.prompt
        found = list(self._each(update.tokens))
        self._tokens += found
        return found

    def _each(self, tokens: Sequence[Token]) -> Iterator[dict[str, Any]]:
        """Each with the text that it adds, so that the texts of all are the whole."""
        for i, token in enumerate(tokens):
            end = tokens[i + 1].offset if i + 1 < len(tokens) else len(self._said)
            text, self._told = self._said[self._told : end], max(self._told, end)
            entry = token.logprobs
            top = (
                [self._one(best.id, spell(self._tokenizer, best.id), best.logprob) for best in entry.top]
                if entry
                else []
            )
            one = self._one(token.id, text, entry.logprob if entry else 0.0)
            yield {"index": len(self._tokens) + i + 1, "token": one, "top_tokens": top}

    def _one(self, token: int, text: str, logprob: float) -> dict[str, Any]:
        special = token in self._tokenizer.hidden_ids
        return {"id": token, "text": text, "logprob": bounded(logprob), "special": special}


def _ids(model: Model, prompt: str, most: int | None) -> list[int]:
    ids = encode(model, prompt)
    return ids[-most:] if most else ids


def _params(asked: dict[str, Any]) -> SamplingParams:
    """The likeliest token each time, unless something asks for chance."""
    filters = {name: asked[name] for name in ("top_k", "top_p", "typical_p") if asked[name] is not None}
    chance = asked["do_sample"] or filters or asked["temperature"] is not None
    temperature = 1.0 if asked["temperature"] is None else asked["temperature"]
    return SamplingParams(
        max_tokens=asked["max_new_tokens"], temperature=temperature if chance else 0.0, seed=asked["seed"],
        repeat_penalty=asked["repetition_penalty"], frequency_penalty=asked["frequency_penalty"], repeat_last_n=-1,
        stop=(*asked["stop"], *asked["stop_sequences"]), include_stop=True, logprobs=asked["top_n_tokens"], **filters,
    )  # fmt: skip
