"""Several models at once: who is asked, who is refused, what is told of them all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from ternrun.api import load
from ternrun.commands.line.parser import Parser
from ternrun.commands.models import add_models, named_models
from ternrun.errors import UsageError
from ternrun.server.generation.models import ModelServices
from ternrun.server.settings import ServerConfig
from tests.fakes import fake_gguf, fake_weights
from tests.server.serving import TEMPLATE, Server, running


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "other.gguf"
    return fake_gguf(file, fake_weights("llama", seed=7), tokenizer__chat_template=TEMPLATE, general__name="file")


@pytest.fixture(scope="module")
def both(path: Path, other: Path) -> Iterator[Server]:
    openers = {"one": lambda: load(path, threads=1), "two,second": lambda: load(other, threads=1)}
    with running(ServerConfig(port=0), openers) as server:
        yield server


ROUTES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", {"prompt": "a", "max_tokens": 8, "temperature": 0}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 8, "temperature": 0}),
    ("/completion", {"prompt": "a", "n_predict": 8, "temperature": 0}),
    ("/api/generate", {"prompt": "a", "stream": False, "raw": True, "options": {"num_predict": 8, "temperature": 0}}),
]


def said(answer: Any) -> str:
    choice = answer["choices"][0] if "choices" in answer else answer
    return str(choice.get("text") or choice.get("content") or choice.get("response") or choice["message"]["content"])


@pytest.mark.parametrize(("route", "fields"), ROUTES)
def test_the_model_that_is_named_answers(both: Server, server: Server, route: str, fields: dict[str, Any]) -> None:
    alone = server.ask(route, fields).json
    answers = {name: both.ask(route, fields | {"model": name}).json for name in ("one", "two", "second")}
    assert said(answers["one"]) == said(alone) == said(both.ask(route, fields).json)
    assert said(answers["two"]) == said(answers["second"]) != said(alone)
    assert [answers[name]["model"] for name in answers] == ["one", "two", "two"]
    refused = both.ask(route, fields | {"model": "three"})
    assert refused.status == 404
    error = refused.json["error"]
    if not route.startswith("/api/"):
        assert (error["type"], error["param"], error["code"]) == ("not_found_error", "model", "model_not_found")
        error = error["message"]
    assert error == "model: there is none of that name; this server has one, two"


def test_what_is_told(both: Server) -> None:
    assert [entry["id"] for entry in both.ask("/v1/models").json["data"]] == ["one", "two"]
    assert both.ask("/v1/models/second").json["id"] == "two"
    assert both.ask("/v1/models/three").status == 404
    assert [entry["name"] for entry in both.ask("/api/tags").json["models"]] == ["one", "two"]
    assert both.ask("/props?model=two").json["model_alias"] == "two"
    assert both.ask("/props").json["model_alias"] == "one"
    assert both.ask("/health").status == 200
    assert both.ask("/tokenize", {"content": "a", "model": "two"}).json == {"tokens": [97]}
    before = figure(both, "ternrun_generated_tokens_total")
    both.complete("a", model="two", max_tokens=3, ignore_eos=True)
    assert figure(both, "ternrun_generated_tokens_total") == before + 3
    assert both.ask("/v1/completions", {"prompt": "a", "model": 3}).status == 404
    assert both.ask("/v1/completions", []).status == 400


def figure(server: Server, name: str) -> float:
    (line,) = [x for x in server.ask("/metrics").body.decode().splitlines() if x.startswith(f"{name} ")]
    return float(line.split()[1])


def test_the_official_client(both: Server) -> None:
    with openai.OpenAI(base_url=f"{both.url}/v1", api_key="none", max_retries=0) as client:
        assert [m.id for m in client.models.list()] == ["one", "two"]
        assert client.completions.create(model="second", prompt="a", max_tokens=2).model == "two"
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="three", prompt="a")


def test_a_model_is_named_in_the_body_or_in_the_query(both: Server) -> None:
    def shown(path: str, body: dict[str, Any]) -> str:
        return str(both.ask(path, body).json["modelfile"]).split()[-1]

    assert shown("/api/show", {"name": "second"}) == shown("/api/show", {"model": "two", "name": "one"}) == "two"
    assert shown("/api/show?model=two", {}) == shown("/api/show?model=one", {"model": "second"}) == "two"
    assert shown("/api/show", {"name": ""}) == "one"
    asked = {"prompt": "a", "max_tokens": 1}
    assert both.ask("/v1/completions?model=second", asked).json["model"] == "two"
    assert both.ask("/v1/completions?model=three", asked).status == 404
    assert both.ask("/v1/completions", asked | {"name": "two"}).json["model"] == "one"
    assert both.ask("/v1/completions", method="POST").status == 400


def test_slots_of_each_model(path: Path, other: Path, tmp_path: Path) -> None:
    openers = {"one": lambda: load(path, threads=1), "two": lambda: load(other, threads=1)}
    with running(ServerConfig(port=0, slot_save_path=str(tmp_path)), openers) as server:
        asked = {"prompt": "a" * 40, "n_predict": 1, "id_slot": 0, "model": "two"}
        assert server.ask("/completion", asked).status == 200
        saved = server.ask("/slots/0?action=save", {"filename": "two.bin", "model": "two"})
        assert (saved.status, saved.json["n_saved"]) == (200, 32)
        assert server.ask("/slots/0?action=erase", method="POST").json["n_erased"] == 0
        assert server.ask("/slots/0?action=erase&model=two", method="POST").json["n_erased"] == 32
        assert server.ask("/slots/0?action=erase&model=three", {}).status == 404


def test_loading_says_so(path: Path) -> None:
    openers = {"one": lambda: load(path, threads=1), "two": lambda: load(path, threads=1)}
    with running(ServerConfig(port=0), openers, load=False) as server:
        assert server.ask("/health").status == 503
        assert server.ask("/v1/completions", {"model": "three", "prompt": "a"}).status == 503


def test_one_model_takes_any_name_and_may_have_aliases(path: Path) -> None:
    with running(ServerConfig(port=0, alias="a,b"), lambda: load(path, threads=1)) as server:
        for name in ("a", "b", "anything"):
            assert server.complete("x", model=name)["model"] == "a"


def test_names(path: Path, other: Path) -> None:
    def named(*given: str, alias: str = "") -> dict[str, str]:
        parser = Parser()
        add_models(parser)
        args = parser.parse([word for one in given for word in ("-m", one)])
        return {names: one.model for names, one in named_models(args, alias).items()}

    assert named(str(path)) == {"": str(path)}
    assert named(str(path), alias="x") == {"x": str(path)}
    assert named(f"a={path}", f"b,c={other}") == {"a": str(path), "b,c": str(other)}
    assert named(str(path), f"a={other}") == {path.stem: str(path), "a": str(other)}
    for wrong in ([str(path), str(path)], [f"a={path}", f"a={other}"]):
        with pytest.raises(UsageError, match="two models are called"):
            named(*wrong)
    with pytest.raises(UsageError, match="two models are called b"):
        ModelServices(ServerConfig(), {"a,b": lambda: load(path), "b": lambda: load(path)})
    odd = path.with_name("a=b.gguf")
    odd.symlink_to(path)
    assert named(str(odd)) == {"": str(odd)}
