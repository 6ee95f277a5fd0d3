"""Chat templates by name write what llama.cpp writes under that name (its tests/test-chat-template.cpp)."""

from __future__ import annotations

import pytest

from ternrun.errors import TemplateError
from ternrun.loader.chat.named_templates import NAMED, named_or_given
from ternrun.loader.chat.template import ChatTemplate

SAID = (
    "You are a helpful assistant",
    "Hello",
    "Hi there",
    "Who are you",
    "   I am an assistant   ",
    "Another question",
)
ROLES = ("system", "user", "assistant", "user", "assistant", "user")
MESSAGES = [{"role": role, "content": content} for role, content in zip(ROLES, SAID, strict=True)]

WRITTEN = {
    "chatml": (
        "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
        "<|im_start|>assistant\nHi there<|im_end|>\n<|im_start|>user\nWho are you<|im_end|>\n"
        "<|im_start|>assistant\n   I am an assistant   <|im_end|>\n<|im_start|>user\nAnother question<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    "command-r": (
        "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>You are a helpful assistant<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hello<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Hi there<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Who are you<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>I am an assistant<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Another question<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
    ),
    "gemma": (
        "<start_of_turn>user\nYou are a helpful assistant\n\nHello<end_of_turn>\n"
        "<start_of_turn>model\nHi there<end_of_turn>\n<start_of_turn>user\nWho are you<end_of_turn>\n"
        "<start_of_turn>model\nI am an assistant<end_of_turn>\n<start_of_turn>user\nAnother question<end_of_turn>\n"
        "<start_of_turn>model\n"
    ),
    "llama3": (
        "<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful assistant<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHi there<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWho are you<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nI am an assistant<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAnother question<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "phi3": (
        "<|system|>\nYou are a helpful assistant<|end|>\n<|user|>\nHello<|end|>\n<|assistant|>\nHi there<|end|>\n"
        "<|user|>\nWho are you<|end|>\n<|assistant|>\n   I am an assistant   <|end|>\n"
        "<|user|>\nAnother question<|end|>\n<|assistant|>\n"
    ),
    "vicuna": (
        "You are a helpful assistant\n\nUSER: Hello\nASSISTANT: Hi there</s>\nUSER: Who are you\n"
        "ASSISTANT:    I am an assistant   </s>\nUSER: Another question\nASSISTANT:"
    ),
    "zephyr": (
        "<|system|>\nYou are a helpful assistant<|endoftext|>\n<|user|>\nHello<|endoftext|>\n"
        "<|assistant|>\nHi there<|endoftext|>\n<|user|>\nWho are you<|endoftext|>\n"
        "<|assistant|>\n   I am an assistant   <|endoftext|>\n<|user|>\nAnother question<|endoftext|>\n<|assistant|>\n"
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_they_are_llama_cpps(name: str) -> None:
    template = ChatTemplate(named_or_given(name), "<s>", "</s>")
    assert template.render(MESSAGES) == WRITTEN[name]
    assert WRITTEN[name].startswith(template.render(MESSAGES, add_generation_prompt=False))


def test_text_is_taken_as_it_is_unless_it_cannot_be_a_template() -> None:
    assert named_or_given("{{ messages[0].content }}") == "{{ messages[0].content }}"
    with pytest.raises(TemplateError, match="'chatlm' is neither a Jinja template nor one of chatml, "):
        named_or_given("chatlm")
