"""docs/server.md is true: its examples run, its tables name every field and route."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from ternrun.server.anthropic import messages
from ternrun.server.app.routes import ROUTES
from ternrun.server.fields.reading import FieldTable
from ternrun.server.fields.sampling import CHAT, COMPLETION
from ternrun.server.llamacpp.completion import COMPLETION as LLAMA
from ternrun.server.llamacpp.completion import INFILL
from ternrun.server.llamacpp.embeddings import EMBEDDINGS as LLAMA_EMBEDDINGS
from ternrun.server.ollama import generate as ollama_generate
from ternrun.server.ollama import library
from ternrun.server.ollama.embeddings import EMBED, EMBEDDINGS
from ternrun.server.openai import embeddings
from ternrun.server.openai.responses import RESPONSES
from ternrun.server.tgi import generate as tgi_generate
from tests.server.serving import Server

PAGE = (Path(__file__).parents[2] / "docs/server.md").read_text()
CURLS = re.findall(r"^\$ (curl .*)$", PAGE, re.M)


@pytest.mark.parametrize("call", CURLS)
def test_curl(server: Server, call: str) -> None:
    """As curl would send it, its content type included."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-N", action="store_true")
    parser.add_argument("-d")
    parser.add_argument("url")
    args = parser.parse_args(shlex.split(call)[1:])
    path = args.url.removeprefix("localhost:8080")
    answer = server.ask(path, args.d.encode(), Content_Type="application/x-www-form-urlencoded")
    assert answer.status == 200, answer.body
    assert answer.events if args.N else answer.json


def test_python(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"^```py\n(.*?)^```", PAGE, re.S | re.M)
    exec(compile(code.replace("http://localhost:8080", server.url), "block", "exec"), {})
    assert "prompt_tokens=16" in capsys.readouterr().out


def test_every_route_is_there() -> None:
    for _, path, _ in ROUTES:
        assert f"`{path.replace('{name:.+}', 'NAME')}`" in re.sub(r"`(?:GET|POST) ", "`", PAGE), path


@pytest.mark.parametrize(
    ("title", "table"),
    [
        ("/v1/completions", COMPLETION),
        ("/v1/chat/completions", CHAT),
        ("/completion", LLAMA),
        ("/infill", INFILL),
        ("/v1/embeddings", embeddings.EMBEDDINGS),
        ("/v1/embeddings", LLAMA_EMBEDDINGS),
        ("/v1/embeddings", EMBED),
        ("/v1/embeddings", EMBEDDINGS),
        ("/api/show", library.SHOW),
        ("/v1/responses", RESPONSES),
        ("/v1/messages", messages.MESSAGES),
        ("/v1/messages", messages.COUNT),
        ("/api/generate", ollama_generate.GENERATE),
        ("/api/generate", ollama_generate.CHAT),
        ("/api/generate", ollama_generate.OPTIONS),
        ("/generate", tgi_generate.GENERATE),
        ("/generate", tgi_generate.PARAMETERS),
    ],
)
def test_every_field_is_there(title: str, table: FieldTable) -> None:
    sections = dict(re.findall(r"^### (/\S+)[^\n]*\n(.*?)(?=^##)", PAGE, re.S | re.M))
    text = sections[title] + (
        sections["/v1/completions"] if table in (CHAT, RESPONSES, embeddings.EMBEDDINGS, LLAMA_EMBEDDINGS) else ""
    )
    text += sections["/completion"] if table is INFILL else ""
    families = re.findall(r"`(\w+)\*`", text)
    for name in [*table.read, *table.hints, *table.constraints]:
        assert f"`{name}`" in text or any(name.startswith(family) for family in families), name
