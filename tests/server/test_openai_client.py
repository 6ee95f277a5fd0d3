"""The official Python client, unmodified."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.server.serving import Server


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_chat(client: openai.OpenAI, server: Server) -> None:
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10, "temperature": 0}
    done = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    assert done.choices[0].message.content == server.model.chat(asked["messages"], max_tokens=10).text
    assert len(done.choices[0].logprobs.content) == done.usage.completion_tokens
    with client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == done.choices[0].message.content
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens >= 0


def test_completions(client: openai.OpenAI, server: Server) -> None:
    done = client.completions.create(model="tiny", prompt=["a", "b"], max_tokens=5, temperature=0, n=2, logprobs=1)
    assert [c.index for c in done.choices] == [0, 1, 2, 3]
    assert done.choices[0].text == server.model.complete("a", max_tokens=5).text
    with client.completions.create(model="tiny", prompt="a", max_tokens=5, temperature=0, stream=True) as stream:
        assert "".join(chunk.choices[0].text for chunk in stream) == done.choices[0].text
    assert [m.id for m in client.models.list()] == ["tiny"]


def test_refusals_are_the_clients_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="tiny", prompt="a", extra_body={"use_beam_search": True})
    assert (refused.value.param, refused.value.code) == ("use_beam_search", "unsupported")
