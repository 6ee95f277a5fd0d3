"""From what a request holds to token ids: prompts, conversations, holes to fill in. Called beside the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ternrun.errors import ContextError
from ternrun.runtime.engine.request import too_long
from ternrun.server.conversation.messages import Message, in_plain_words, read_messages
from ternrun.server.conversation.tool_call_formats import GENERIC, family_of, instructions
from ternrun.server.conversation.tools import Tools
from ternrun.server.http.errors import ApiError

if TYPE_CHECKING:
    from ternrun.api import Model

Prompt = str | list[int]


class File(NamedTuple):
    """Another file of the project that has a hole to fill."""

    name: str
    text: str


_HERE = "\x01(it goes on here)\x01"  # marks the end of a message while a template writes it out, and may trim it
_PLAUSIBLE = 16  # characters a token; more than that in all of a text deserves a look
_SHORTENED = 64  # characters a token of a text of which only one end is wanted


def openai_prompts(value: Any, most: int, name: str = "prompt") -> list[Prompt]:
    """A string, a list of token ids, or a list of either. Raises ApiError."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if _is_ids(value):
            return [value]
        if len(value) <= most and all(isinstance(p, str) or (isinstance(p, list) and p and _is_ids(p)) for p in value):
            return value
    raise ApiError(
        f"{name}: must be a string, a list of token ids, or a list of at most {most} of these, not empty",
        param=name,
    )


def encode(
    model: Model, prompt: Prompt, *, special: bool = True, bos: bool = True, eos: bool = False
) -> list[int]:  # fmt: skip
    """Ids of a prompt; those given as ids stay as they are.

    Raises ContextError for more than the context holds: at once, so that no more of a request is read, and before any
    work is done for a text that is too long even if its tokens were the longest.
    """
    if isinstance(prompt, str):
        _check_length(model, prompt)
        prompt = model.tokenizer.encode(prompt, special=special, bos=bos, eos=eos)
    if len(prompt) > model.context:
        raise too_long(len(prompt), model.context)
    return prompt


def _check_length(model: Model, prompt: str) -> None:
    if len(prompt) > _PLAUSIBLE * model.context:
        tokenizer = model.tokenizer
        longest = max(len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size))
        if len(prompt) > longest * model.context:
            message = f"the prompt has {len(prompt)} characters, but the context holds {model.context} tokens"
            raise ContextError(message, tokens=-(-len(prompt) // longest), context=model.context)


def shortened(model: Model, prompt: Prompt) -> list[int]:
    """As `encode`, but what the context has no room for is left out. A text keeps the token that ends one, by which
    encoders tell a whole text from a part; ids that are given are taken as they are, up to there."""
    if not isinstance(prompt, str):
        return prompt[: model.context]
    ids = model.tokenizer.encode(prompt[: _SHORTENED * model.context], eos=True)
    end = ids[-1:] if model.tokenizer.add_eos else []
    return ids if len(ids) <= model.context else [*ids[: model.context - len(end)], *end]


def fill_in(
    model: Model, prefix: Prompt, suffix: str, *, files: Sequence[File] = (), answer: int = 0, more: str = "",
    name: str = "suffix",
) -> list[int]:  # fmt: skip
    """Ids that ask for the text between the two; `files` come before all of it, `more` behind the prefix.

    Of files that would leave too little room for an answer of `answer` tokens, or of a quarter of the context, the
    beginning is left out. Raises ApiError, naming the field `name`, where the model was not trained for that.
    """
    tokenizer = model.tokenizer
    if tokenizer.fim is None:
        raise ApiError(
            f"{name}: this model has no tokens for filling in the middle, so it can only continue a text",
            param=name, code="unsupported",
        )  # fmt: skip
    before, after, middle = tokenizer.fim
    head = encode(model, prefix, special=False, bos=False)
    tail = encode(model, suffix, special=False, bos=False)
    begin = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    hole = [before, *head, *encode(model, more, special=False, bos=False), after, *tail, middle]
    room = model.context - len(begin) - len(hole) - min(answer, model.context // 4)
    return [*begin, *(_written(model, files, max(0, room)) if files else []), *hole]


def _written(model: Model, files: Sequence[File], room: int) -> list[int]:
    """As llama.cpp writes them: behind the token for a file and its name, or a line that parts them. Only the last
    `room` ids; what is before those is not even read."""
    project, separator = model.tokenizer.files

    def plain(text: str) -> list[int]:
        return model.tokenizer.encode(text[-_SHORTENED * model.context :], special=False, bos=False)

    ids = [] if separator is None else [separator, *plain("filename\n")]
    for file in reversed(files):
        if len(ids) >= room:
            break
        head = plain("\n\n--- snippet ---\n\n") if separator is None else [separator, *plain(f"{file.name}\n")]
        ids = [*head, *plain(file.text), *ids]
    if project is not None:
        ids = [project, *plain("myproject\n"), *ids]
    return ids[max(0, len(ids) - room) :]


def render(
    model: Model,
    messages: Any,
    *,
    begin: bool | None = None,
    go_on: bool | None = None,
    variables: Any = None,
    tools: Tools | None = None,
) -> str:
    """A conversation written out by the model's template, up to the beginning of an answer (unless `begin` is false),
    or, with `go_on`, to the end of what the last message says. Where neither is said, a last message of the
    assistant's own text goes on. Raises ApiError, TemplateError."""
    template = model.chat_template
    if template is None:
        raise ApiError("this model has no chat template: it continues text, see /v1/completions", code="unsupported")
    if variables is not None and not isinstance(variables, dict):
        raise ApiError("chat_template_kwargs: must be an object", param="chat_template_kwargs")
    told, family = read_messages(messages), family_of(template.source)
    read = in_plain_words(told, instructions(tools) if tools else "") if family is GENERIC else told
    written = [f.written for f in tools.functions] if tools and family is not GENERIC else None
    last = _unended(told, begin, go_on)
    if last is None:
        return template.render(read, tools=written, add_generation_prompt=begin is not False, variables=variables)
    read[-1] = read[-1] | {"content": last + _HERE}
    prompt = template.render(read, tools=written, add_generation_prompt=False, variables=variables)
    said, found, _ = prompt.rpartition(_HERE)
    if not found:
        raise ApiError(
            "continue_final_message: this model's template does not write the assistant's last message out as it is, "
            "so that it cannot go on; where it is false, the next answer begins",
            param="continue_final_message", code="unsupported",
        )  # fmt: skip
    return said


def _unended(messages: Sequence[Message], begin: bool | None, go_on: bool | None) -> str | None:
    """What the last message says, where that goes on; None where an answer begins. Raises ApiError.

    Unasked it goes on with llama.cpp, Ollama and Anthropic; vLLM wants to be asked, and OpenAI has no such thing.
    """
    last = messages[-1]
    can = last["role"] == "assistant" and not last.get("tool_calls")
    if go_on and (begin or not can):
        raise ApiError(
            "continue_final_message: the last message must be the assistant's, without calls, and "
            "add_generation_prompt must not be true",
            param="continue_final_message",
        )
    return last["content"] if can and not begin and go_on is not False else None


def _is_ids(value: list[Any]) -> bool:
    return all(type(i) is int for i in value)


def llama_prompts(model: Model, prompt: Any, most: int) -> list[list[int]]:
    """llama.cpp's forms: a string, a list of ids, ids and strings mixed, or a list of any of these.

    At most `most` of them. Raises ApiError."""
    if isinstance(prompt, list) and not any(type(part) is int for part in prompt):
        if not 0 < len(prompt) <= most:
            raise ApiError(f"prompt: from 1 to {most} prompts may be asked at once", param="prompt")
        return [_mixed(model, one) for one in prompt]
    return [_mixed(model, prompt)]


def _mixed(model: Model, prompt: Any) -> list[int]:
    if isinstance(prompt, dict) and set(prompt) <= {"prompt_string", "multimodal_data"}:
        if prompt.get("multimodal_data"):
            raise ApiError("prompt: this model reads text only", param="prompt", code="unsupported")
        prompt = prompt.get("prompt_string")
    if isinstance(prompt, str):
        return encode(model, prompt)
    if not isinstance(prompt, list) or not all(isinstance(p, str) or type(p) is int for p in prompt):
        raise ApiError("prompt: must be a string, a list of token ids and strings, or a list of these", param="prompt")
    ids: list[int] = []
    for i, part in enumerate(prompt):
        ids += [part] if isinstance(part, int) else encode(model, part, bos=i == 0)
        if len(ids) > model.context:  # what follows could be a hundred times as much
            message = f"the prompt begins with {len(ids)} tokens, but the context holds {model.context}"
            raise ContextError(message, tokens=len(ids), context=model.context)
    return ids
