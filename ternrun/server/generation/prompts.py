"""Turns prompts and texts with a hole into token ids. Runs beside the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ternrun.errors import ContextError
from ternrun.runtime.engine.request import too_long
from ternrun.server.http.errors import ApiError

if TYPE_CHECKING:
    from ternrun.api import Model

Prompt = str | list[int]


class ProjectFile(NamedTuple):
    """Another file of the project, as context for filling a hole."""

    name: str
    text: str


_PLAUSIBLE = 16  # characters a token; more than that in all of a text deserves a look
_SHORTENED = 64  # characters a token of a text of which only one end is wanted


def openai_prompts(value: Any, most: int, name: str = "prompt") -> list[Prompt]:
    """The prompts of OpenAI's field: a string, a list of token ids, or a list of either. Raises ApiError."""
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
    """The token ids of a prompt. Given ids stay as they are.

    Raises ContextError if they exceed the context. The check comes before tokenizing for texts that are too long even
    with the longest tokens.
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


def encode_truncated(model: Model, prompt: Prompt) -> list[int]:
    """As `encode`, but cut to the context. A text keeps its end token, which encoders expect.

    Given ids are cut without an end token.
    """
    if not isinstance(prompt, str):
        return prompt[: model.context]
    ids = model.tokenizer.encode(prompt[: _SHORTENED * model.context], eos=True)
    end = ids[-1:] if model.tokenizer.add_eos else []
    return ids if len(ids) <= model.context else [*ids[: model.context - len(end)], *end]


def fill_in(
    model: Model, prefix: Prompt, suffix: str, *, files: Sequence[ProjectFile] = (), answer: int = 0, more: str = "",
    name: str = "suffix",
) -> list[int]:  # fmt: skip
    """Token ids that ask for the text between `prefix` and `suffix`. `files` come first, `more` follows the prefix.

    The beginning of the files is dropped if it would leave less room than `answer` tokens or a quarter of the context.
    Raises ApiError, naming the field `name`, if the model was not trained for this.
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


def _written(model: Model, files: Sequence[ProjectFile], room: int) -> list[int]:
    """The files as llama.cpp writes them: with the token for a file and its name, or a separating line.

    Returns only the last `room` ids and does not tokenize what precedes them.
    """
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


def _is_ids(value: list[Any]) -> bool:
    return all(type(i) is int for i in value)
