"""/openapi.json is true: it names every route, and what it rules out is refused."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ternrun.server.app.openapi import BODIES, fields
from ternrun.server.app.routes import ROUTES
from ternrun.server.fields.reading import FieldTable, schema_of
from tests.server.hostile import NASTY, VALID, requests
from tests.server.serving import Server

TABLES = {path: body.table for path, body in BODIES.items()}


@pytest.fixture(scope="module")
def document(server: Server) -> Any:
    return server.ask("/openapi.json").json


def test_every_route_is_described(document: Any) -> None:
    described = {(m.upper(), path) for path, operations in document["paths"].items() for m in operations}
    assert described == {(method, path.replace(":.+}", "}")) for method, path, _ in ROUTES}
    for method, path, _ in ROUTES:
        operation = document["paths"][path.replace(":.+}", "}")][method.lower()]
        assert operation["summary"]
        assert ("requestBody" in operation) == (method == "POST"), f"{path} needs an entry in openapi.BODIES"


def test_what_stands_in_the_address_is_told(document: Any) -> None:
    given = document["paths"]["/slots/{id}"]["post"]["parameters"]
    assert [(one["name"], one["in"], one["required"]) for one in given] == [
        ("id", "path", True), ("action", "query", True),
    ]  # fmt: skip


def test_its_schemas_are_schemas(document: Any) -> None:
    for operation in (o for operations in document["paths"].values() for o in operations.values()):
        if "requestBody" in operation:
            Draft202012Validator.check_schema(operation["requestBody"]["content"]["application/json"]["schema"])


@pytest.mark.parametrize("route", VALID)
def test_what_it_rules_out_is_refused(server: Server, document: Any, route: str) -> None:
    schema = document["paths"][route]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator, rng, asked = Draft202012Validator(schema), random.Random(1), 0
    assert validator.is_valid(VALID[route])
    for name in schema["properties"]:
        bodies = [VALID[route] | {name: value} for value in NASTY]
        wrong = [body for body in bodies if not validator.is_valid(body)]
        for body in rng.sample(wrong, min(4, len(wrong))):
            assert server.ask(route, body).status == 400, body
            asked += 1
    plain = server.ask(route, VALID[route])
    assert server.ask(route, {**VALID[route], "no_such_field": 1}).status == plain.status
    for name in schema["required"]:
        assert server.ask(route, {k: v for k, v in VALID[route].items() if k != name}).status == 400
    assert asked > 2


@pytest.mark.parametrize("route", TABLES)
def test_numbers_are_taken_where_it_says_so(route: str) -> None:
    for read, _ in TABLES[route].read.values():
        if "minimum" in schema_of(read):
            for value in (value for value in NASTY if Draft202012Validator(schema_of(read)).is_valid(value)):
                if value == value:  # JSON has no NaN, which passes any comparison
                    read(value)


@pytest.mark.parametrize("route", TABLES)
def test_names_that_are_not_in_it_are_refused(route: str) -> None:
    table: FieldTable = TABLES[route]
    loose, strict = fields(table), fields(table, strict=True)
    for described in (loose, strict):
        assert set(described["properties"]) == {*table.read, *table.hints, *table.constraints}
        for name, nothing in table.constraints.items():
            assert described["properties"][name]["enum"] == [*nothing, None]
    assert "additionalProperties" not in loose
    assert strict["additionalProperties"] == {"type": "null"}


def test_hostile_requests_are_refused_in_one_sentence(server: Server, document: Any, caplog: Any) -> None:
    refused = 0
    for path, body in islice(requests(seed=1), 400):
        answer = server.ask(path, body)
        assert str(answer.status) in document["paths"][path]["post"]["responses"], (path, body[:300], answer.body)
        assert answer.status < 500, (path, body[:300], answer.body)
        if answer.status != 200:
            refused += 1
            error = answer.json["error"]
            assert "\n" not in (error if path.startswith("/api/") else error["message"])
        elif path in ("/v1/completions", "/v1/chat/completions", "/completion") and b'"stream": true' not in body:
            assert answer.json
    assert 200 < refused < 400
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert server.model.driver.engine.load == (0, 0)
