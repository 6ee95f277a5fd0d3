"""Run a hostile Jinja template without harm: no access to the process, and bounds on time, memory and output.

jinja2's sandbox keeps templates away from Python's internals but lets them loop for ever and build strings of any size.
Here every value that a template makes is weighed, every loop and call is counted, and what can explode before it can be
weighed (`*`, `**`, replace, join, padding) is computed in advance or not offered at all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from functools import wraps
from types import GeneratorType
from typing import Any

from jinja2 import Template, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_indent, make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from ternrun.errors import TemplateError

MAX_VALUE = 1 << 24  # characters of one value, containers counted with all they hold
MAX_MADE = 1 << 26  # characters of all values together
MAX_STEPS = 1 << 20  # loop turns, calls and elements looked at
MAX_SECONDS = 0.25  # of processor time; templates in use take a few milliseconds
MAX_BITS = 4096  # of a whole number
MAX_INDENT = 64
_ELEMENT = 64  # characters' worth of memory that an element of a container counts for


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILTERS = _names(
    "abs capitalize count d default dictsort first float groupby int items last length list lower map max min reject"
    " rejectattr reverse select selectattr sort string title trim unique upper"
)
_METHODS = {
    str: _names(
        "capitalize count endswith find index isalnum isalpha isdigit islower isnumeric isspace isupper join lower"
        " lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines"
        " startswith strip swapcase title upper"
    ),
    dict: _names("get items keys values"),
    list: _names("count index"),
    tuple: _names("count index"),
}


class GenerationTag(Extension):
    """`{% generation %} ... {% endgeneration %}` marks the assistant's words for training; here it is transparent."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own declaration)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The nodes between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment for one template at a time. `render` raises TemplateError when a bound is passed."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, finalize=self.made,
                         extensions=[loopcontrols, GenerationTag])  # fmt: skip
        own = {"replace": self._replace, "join": self._join, "indent": self._indent, "tojson": _tojson, "safe": str}
        self.filters = {n: self._counted(f) for n, f in [*((n, self.filters[n]) for n in _FILTERS), *own.items()]}
        self._reset()

    def compile_source(self, source: str) -> Template:
        """Parse and compile. Raises jinja2's errors, RecursionError, SyntaxError."""
        self._reset()
        tree: nodes.Template = _Weighing().visit(self.parse(source))
        tree.set_environment(self)
        return self.from_string(tree)

    def render(self, template: Template, names: Mapping[str, Any]) -> str:
        """The template's output. Raises TemplateError, jinja2's errors, and whatever the template provokes."""
        self._reset()
        return self.concat(template.generate(names))

    def concat(self, pieces: Iterable[str]) -> str:
        """What jinja2 joins the output, blocks and macros by: a template's fixed text is weighed nowhere else."""
        listed, weight = [], 0
        for piece in pieces:
            weight += len(piece)
            self._check_size(weight)
            listed.append(piece)
        text: str = self.made("".join(listed))
        return text

    def made(self, value: Any) -> Any:
        """Account for a value that the template has made; returns it."""
        weight, parts = self._weigh(value)
        self._chars += weight if isinstance(value, str) else parts * _ELEMENT
        if self._chars > MAX_MADE:
            raise TemplateError(f"the chat template makes more than {MAX_MADE} characters of text")
        return value

    def loop(self, items: Iterable[Any]) -> Iterable[Any]:
        """Account for the turns of a loop before it is entered; returns what to loop over."""
        if isinstance(items, Sized):
            self._step(len(items))
        return items

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Builtin types offer only what is listed."""
        offered = next((m for t, m in _METHODS.items() if isinstance(obj, t)), None)
        return super().is_safe_attribute(obj, attr, value) if offered is None else attr in offered

    def wrap_str_format(self, value: Any) -> None:
        """`str.format` pads to any width: it is treated like any other attribute, and refused."""

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Every call of a template comes here."""
        owner = getattr(function, "__self__", None)
        if owner is self:
            return function(args[0])
        self._step(1)
        if isinstance(owner, str) and function.__name__ in ("replace", "join"):
            return self.made(getattr(self, f"_{function.__name__}_text")(owner, *args))
        if isinstance(function, LoopContext):  # a recursive loop
            args = (self.loop(args[0]), *args[1:])
        return self.made(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuse operations whose result is out of proportion."""
        if operator == "*":
            self._check_product(left, right)
        elif operator == "**" and not (abs(left) < 2**32 and abs(right) <= 64):
            raise TemplateError("the chat template raises a number to a power that is too high")
        elif operator == "%" and isinstance(left, str):
            raise TemplateError("the chat template formats text with %, which is not supported")
        return self.made(super().call_binop(context, operator, left, right))

    def _reset(self) -> None:
        self._steps = self._chars = 0
        self._deadline = time.thread_time() + MAX_SECONDS

    def _step(self, count: int) -> None:
        self._steps += count
        if self._steps > MAX_STEPS or time.thread_time() > self._deadline:
            raise TemplateError("the chat template takes too many steps")

    def _weigh(self, value: Any) -> tuple[int, int]:
        """Characters' worth of a value and of all it holds, shared parts counted each time; number of its parts."""
        weight, parts, rest = 0, 0, [value]
        while rest:
            item = rest.pop()
            if isinstance(item, str):
                weight += len(item)
            elif isinstance(item, (list, tuple)):
                rest += item
            elif isinstance(item, Mapping):
                rest += [*item.keys(), *item.values()]
            elif isinstance(item, int) and item.bit_length() > MAX_BITS:
                raise TemplateError("the chat template makes a number that is too large")
            parts += 1
            self._check_size(weight + parts * _ELEMENT)
        self._step(parts)
        return weight, parts

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter whose result is accounted for, item by item where it is lazy."""

        @wraps(function)  # with the marks that tell jinja2 what to pass
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._step(1)
            result = function(*args, **kwargs)
            return map(self.made, result) if isinstance(result, GeneratorType) else self.made(result)

        return counted

    def _check_size(self, weight: int) -> None:
        if weight > MAX_VALUE:
            raise TemplateError(f"the chat template makes a value of more than {MAX_VALUE} characters")

    def _check_product(self, left: Any, right: Any) -> None:
        for value, times in ((left, right), (right, left)):
            if isinstance(value, (str, list, tuple)):
                weight, parts = self._weigh(value)
                self._check_size((weight + parts) * int(times))

    def _replace_text(self, text: str, old: str, new: str, count: int = -1) -> str:
        self._check_size(text.count(old) * len(new))
        return text.replace(old, new, count)

    def _join_text(self, separator: str, items: Iterable[str]) -> str:
        listed = list(items)
        self._check_size(self._weigh(listed)[0] + len(listed) * len(separator))
        return separator.join(listed)

    def _replace(self, value: Any, old: Any, new: Any, count: int | None = None) -> str:
        return self._replace_text(str(value), str(old), str(new), -1 if count is None else count)

    def _join(self, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        items = value if attribute is None else map(make_attrgetter(self, attribute), value)
        return self._join_text(str(d), map(str, items))

    def _indent(self, value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        text, margin = str(value), width if isinstance(width, str) else " " * min(width, MAX_INDENT)
        self._check_size((len(text.splitlines()) + 1) * len(margin))
        return do_indent(text, margin, first, blank)


class _Weighing(NodeTransformer):
    """Sends what a template makes without a call or an operator through the sandbox's account."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        """All children first."""
        node = super().generic_visit(node, *args, **kwargs)
        if isinstance(node, nodes.For):
            node.iter = _account("loop", node.iter)
            node.body.insert(0, nodes.ExprStmt(_account("made", nodes.Const(None, lineno=node.lineno))))
        is_slice = isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
        if is_slice or isinstance(node, (nodes.Concat, nodes.List, nodes.Tuple, nodes.Dict)):
            return node if getattr(node, "ctx", "load") != "load" else _account("made", node)
        return node


def _account(method: str, value: nodes.Node) -> nodes.Call:
    call = nodes.Call(nodes.EnvironmentAttribute(method), [value], [], None, None)
    call.set_lineno(value.lineno)
    return call


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As Hugging Face renders it: no HTML escapes."""
    if (indent or 0) > MAX_INDENT or any(len(s) > MAX_INDENT for s in separators or ()):
        raise TemplateError(f"the chat template indents by more than {MAX_INDENT}")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
