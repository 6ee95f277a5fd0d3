"""From what a request holds to token ids: prompts, conversations, holes to fill in. Called beside the event loop."""

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
    """Another file of the project that has a hole to fill."""

    name: str
    text: str


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


def encode_truncated(model: Model, prompt: Prompt) -> list[int]:
    """As `encode`, but what the context has no room for is left out. A text keeps the token that ends one, by which
    encoders tell a whole text from a part; ids that are given are taken as they are, up to there."""
    if not isinstance(prompt, str):
        return prompt[: model.context]
    ids = model.tokenizer.encode(prompt[: _SHORTENED * model.context], eos=True)
    end = ids[-1:] if model.tokenizer.add_eos else []
    return ids if len(ids) <= model.context else [*ids[: model.context - len(end)], *end]


def fill_in(
    model: Model, prefix: Prompt, suffix: str, *, files: Sequence[ProjectFile] = (), answer: int = 0, more: str = "",
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


def _written(model: Model, files: Sequence[ProjectFile], room: int) -> list[int]:
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


def _is_ids(value: list[Any]) -> bool:
    return all(type(i) is int for i in value)
