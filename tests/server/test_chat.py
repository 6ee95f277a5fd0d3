"""POST /v1/chat/completions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ternrun.api import load
from ternrun.server.conversation.render import render
from ternrun.server.http.errors import ApiError
from tests.server.serving import Server

MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
CALLING = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]}


def chat(server: Server, messages: Any = MESSAGES, **fields: Any) -> Any:
    fields = {"temperature": 0, "max_tokens": 12} | fields
    answer = server.ask("/v1/chat/completions", {"messages": messages, **fields})
    assert answer.status == 200, answer.body
    return answer


def test_text_is_what_the_python_api_makes(server: Server) -> None:
    done = chat(server).json
    same = server.model.chat(MESSAGES, max_tokens=12)
    (choice,) = done["choices"]
    assert choice["message"] == {"role": "assistant", "content": same.text, "refusal": None}
    assert choice["finish_reason"] == same.finish_reason
    assert done["usage"]["prompt_tokens"] == len(same.prompt_ids)


def test_streamed_equals_unstreamed(server: Server) -> None:
    fields = {"logprobs": True, "top_logprobs": 2, "n": 2, "seed": 3, "temperature": 1}
    whole = chat(server, **fields).json["choices"]
    events = chat(server, **fields, stream=True, stream_options={"include_usage": True}).events
    assert events.pop()["choices"] == []
    for i in range(2):
        mine = [e["choices"][0] for e in events if e["choices"][0]["index"] == i]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(c["delta"].get("content", "") for c in mine) == whole[i]["message"]["content"]
        told = [entry for c in mine if c["logprobs"] for entry in c["logprobs"]["content"]]
        assert told == whole[i]["logprobs"]["content"]
        assert all(len(entry["top_logprobs"]) == 2 for entry in told)
        assert mine[-1]["finish_reason"] == whole[i]["finish_reason"]


def test_other_ways_to_say_the_same(server: Server) -> None:
    plain = chat(server).json["choices"]
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    for messages in (
        [{"role": "developer", "content": "be brief"}, MESSAGES[1]],
        [MESSAGES[0], {"role": "user", "content": parts, "tool_calls": None}],
    ):
        assert chat(server, messages).json["choices"] == plain
    assert chat(server, max_tokens=None, max_completion_tokens=12).json["choices"] == plain


def test_the_template_gets_its_variables(server: Server) -> None:
    def prompt(**fields: Any) -> str:
        answer = server.ask("/apply-template", {"messages": MESSAGES, **fields})
        return str(answer.json["prompt"])

    assert prompt() == "[system]be brief[user]hi[assistant]"
    assert prompt(add_generation_prompt=False) == "[system]be brief[user]hi"
    assert prompt(chat_template_kwargs={"shout": True}) == "[system]be brief[user]hi![assistant]"


def test_the_last_message_goes_on(server: Server) -> None:
    messages = [*MESSAGES, {"role": "assistant", "content": " So "}]
    go_on = {"messages": messages, "continue_final_message": True}
    prompt = server.ask("/apply-template", go_on).json["prompt"]
    assert prompt == "[system]be brief[user]hi[assistant] So "
    done = server.ask("/v1/chat/completions", go_on | {"max_tokens": 6, "temperature": 0}).json["choices"][0]
    assert done["message"]["content"] == server.model.complete(prompt, max_tokens=6).text
    for wrong in ({"add_generation_prompt": True}, {"messages": MESSAGES}, {"messages": [*MESSAGES, CALLING]}):
        answer = server.ask("/v1/chat/completions", go_on | wrong)
        assert answer.status == 400
        assert "the last message must be the assistant's" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("said", "fields", "end"),
    [
        ("So", {}, "[assistant]So"),
        ("So", {"add_generation_prompt": False}, "[assistant]So"),
        ("So", {"add_generation_prompt": True}, "[assistant]So[assistant]"),
        ("So", {"continue_final_message": False}, "[assistant]So[assistant]"),
        ("So", {"continue_final_message": False, "add_generation_prompt": False}, "[assistant]So"),
        ("", {}, "[user]hi[assistant]"),
        (None, {"continue_final_message": True}, "[user]hi[assistant]"),
    ],
)
def test_the_assistants_own_last_message_goes_on_unless_it_is_said_otherwise(
    server: Server, said: str | None, fields: dict[str, bool], end: str
) -> None:
    messages = [*MESSAGES, {"role": "assistant", "content": said}]
    assert server.ask("/apply-template", {"messages": messages, **fields}).json["prompt"].endswith(end)
    answer = chat(server, messages=messages, verbose=True, **fields).json
    assert answer["__verbose"]["prompt"].endswith(end)


def test_a_call_does_not_go_on(server: Server) -> None:
    answer = server.ask("/apply-template", {"messages": [*MESSAGES, CALLING]})
    assert answer.json["prompt"].endswith("[assistant]")


def test_a_message_that_the_template_alters_cannot_go_on(path: Path) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "So"}]
    shouting = "{% for m in messages %}[{{ m.role }}]{{ m.content[:2] }}{% endfor %}"
    with load(path, threads=1, chat_template=shouting) as model:
        with pytest.raises(ApiError, match="does not write the assistant's last message out as it is"):
            render(model, messages)
        assert render(model, messages, go_on=False) == "[user]hi[assistant]So"


def test_a_template_that_trims_lets_it_go_on_too(path: Path) -> None:
    messages = [{"role": "user", "content": " hi "}, {"role": "assistant", "content": " So "}]
    with load(path, threads=1, chat_template="llama3") as model:
        assert render(model, messages, go_on=True).endswith(
            "\n\nhi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nSo "
        )


def test_how_many_tokens_a_conversation_has(server: Server) -> None:
    want = len("[system]be brief[user]hi[assistant]")
    for path in ("/v1/chat/completions/input_tokens", "/chat/completions/input_tokens"):
        assert server.ask(path, {"messages": MESSAGES}).json["input_tokens"] == want
    assert server.ask("/v1/responses/input_tokens", {"input": MESSAGES}).json["input_tokens"] == want


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "messages: must be a list of 1"),
        ("hi", "messages: must be a list of 1"),
        (["hi"], "messages[0]: must be an object"),
        ([{"role": "robot", "content": ""}], "messages[0].role: must be one of"),
        ([{"role": ["user"], "content": ""}], "messages[0].role: must be one of"),
        ([{"role": "user", "content": 3}], "messages[0].content: must be a string"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "parts of type text only"),
        ([{"role": "assistant", "tool_calls": [{}]}], "messages[0].tool_calls[0].function: must be an object"),
        ([{"role": "user", "content": "", "name": 3}], "messages[0].name: must be a string"),
        (None, "messages: it is missing"),
    ],
)
def test_messages_that_cannot_be(server: Server, messages: Any, says: str) -> None:
    answer = server.ask("/v1/chat/completions", {"messages": messages})
    assert answer.status == 400
    assert says in answer.json["error"]["message"]
    assert answer.json["error"]["message"].startswith(f"{answer.json['error']['param']}: ")
