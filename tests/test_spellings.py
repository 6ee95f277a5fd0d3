"""Other programs' flags: the table is sound, and its page in the documentation is what it says."""

from __future__ import annotations

import pytest

from ternrun.commands.line.spellings import SPELLINGS, Idle, Refused, Rule, Same
from ternrun.commands.names import ADVICE, COMMANDS, SAME, command_parser
from tests.spellings_page import PAGE, page

RULES = [(name, rule) for name, rules in SPELLINGS.items() for rule in rules]


@pytest.fixture(scope="module")
def flags() -> dict[str, dict[str, bool]]:
    return {name: command_parser(name).flags() for name in COMMANDS}


def test_the_page_says_what_the_table_does() -> None:
    assert PAGE.read_text() == page()


@pytest.mark.parametrize(("name", "rule"), RULES, ids=[name for name, _ in RULES])
def test_a_rule_leads_to_a_flag_of_a_command(name: str, rule: Rule, flags: dict[str, dict[str, bool]]) -> None:
    needed = rule.flag if isinstance(rule, Same) else rule.where
    assert any(needed in own for own in flags.values())
    assert isinstance(rule, Same | Idle | Refused)
    assert not isinstance(rule, Same) or not rule.prefix or all(own.get(rule.flag, True) for own in flags.values())


@pytest.mark.parametrize(("name", "rules"), SPELLINGS.items(), ids=SPELLINGS)
def test_a_rule_can_be_reached(name: str, rules: tuple[Rule, ...], flags: dict[str, dict[str, bool]]) -> None:
    """Each rule decides for some command that has no flag of that name itself."""
    first = set()
    for own in flags.values():
        if name not in own:
            needs = [rule.flag if isinstance(rule, Same) else rule.where for rule in rules]
            first.add(next((index for index, needed in enumerate(needs) if needed in own), None))
    reached = {index for index in first if index is not None}
    own_names = {index for index, rule in enumerate(rules) if isinstance(rule, Same) and rule.flag == name}
    assert reached | own_names == set(range(len(rules)))


def test_commands_of_others_are_none_of_ours() -> None:
    assert not (set(SAME) | set(ADVICE)) & set(COMMANDS)
    assert not set(SAME) & set(ADVICE)
    assert set(SAME.values()) <= set(COMMANDS)
