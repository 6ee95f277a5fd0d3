"""Chat templates by name, for models whose file has none or a wrong one. The names are llama.cpp's.

None writes the begin token: the tokenizer of a model that wants one puts it there.
"""

from __future__ import annotations

from collections.abc import Mapping

from ternrun.errors import TemplateError


def _turns(turn: str, begin: str) -> str:
    """A template that writes each message as `turn` and asks for an answer with `begin`."""
    return f"{{% for m in messages %}}{turn}{{% endfor %}}{{% if add_generation_prompt %}}{begin}{{% endif %}}"


_GEMMA = (
    "{% set ns = namespace(system='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns.system = m.content | trim + '\n\n' %}{% else %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ ns.system }}{{ m.content | trim }}<end_of_turn>\n{% set ns.system = '' %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_COMMAND_R = "{{ {'system': 'SYSTEM', 'assistant': 'CHATBOT'}.get(m.role, 'USER') }}"

NAMED: Mapping[str, str] = {
    "chatml": _turns("<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n", "<|im_start|>assistant\n"),
    "command-r": _turns(
        f"<|START_OF_TURN_TOKEN|><|{_COMMAND_R}_TOKEN|>{{{{ m.content | trim }}}}<|END_OF_TURN_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    ),
    "gemma": _GEMMA,
    "llama3": _turns(
        "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "phi3": _turns("<|{{ m.role }}|>\n{{ m.content }}<|end|>\n", "<|assistant|>\n"),
    "vicuna": _turns(
        "{% if m.role == 'system' %}{{ m.content }}\n\n{% elif m.role == 'assistant' %}ASSISTANT: {{ m.content }}</s>\n"
        "{% else %}USER: {{ m.content }}\n{% endif %}",
        "ASSISTANT:",
    ),
    "zephyr": _turns("<|{{ m.role }}|>\n{{ m.content }}<|endoftext|>\n", "<|assistant|>\n"),
}


def named_or_given(text: str) -> str:
    """The template of that name, or the text itself where it is one. Raises TemplateError for what is neither."""
    if not isinstance(text, str):
        raise TemplateError(f"a chat template is text, not {text!r}")
    if text in NAMED:
        return NAMED[text]
    if "{" not in text:
        raise TemplateError(f"{text[:80]!r} is neither a Jinja template nor one of {', '.join(NAMED)}")
    return text
