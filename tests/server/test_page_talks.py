"""Conversations on the page: kept, listed, edited, exported; and what it says of a server that goes and comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.browsing import By, Keys, Page
from tests.server.scripted import Script, scripted


@pytest.fixture
def script() -> Iterator[Script]:
    with scripted() as it:
        it.pieces = ["An ", "answer."]
        yield it


@pytest.fixture
def page(browser: Any, script: Script) -> Page:
    return Page(browser, script.url).ready()


def shown(page: Page) -> list[str]:
    return page.texts("#log .body")


def test_a_conversation_survives_and_is_listed(page: Page, script: Script) -> None:
    page.ask("First question")
    page.press("New conversation")
    page.ask("Second question")
    page.browser.refresh()
    page.ready()
    assert shown(page) == ["Second question", "An answer."]
    assert page.titles() == ["Second question", "First question"]
    page.press("First question")
    page.wait(lambda: shown(page) == ["First question", "An answer."])
    page.ask("More")
    assert [m["content"] for m in script.asked[-1]["messages"]] == ["First question", "An answer.", "More"]
    assert page.titles() == ["First question", "Second question"]
    page.browser.get(page.url)
    page.ready()
    assert len(shown(page)) == 4


def test_an_answer_that_a_reload_interrupts(page: Page, script: Script) -> None:
    script.hold.clear()
    page.say("Slowly")
    page.wait(lambda: "answer" in page.text())
    time.sleep(2.2)  # a growing answer is saved every two seconds
    page.browser.refresh()
    script.hold.set()
    page.ready()
    assert shown(page) == ["Slowly", "An answer."]
    assert page.end() == "Interrupted, or still being written in another tab."
    script.pieces = [" It goes on."]
    page.press("Go on")
    page.wait(lambda: shown(page)[-1] == "An answer. It goes on.")


def test_rename_delete_and_undo(page: Page) -> None:
    page.ask("A title that is not good")
    page.menu("rename")
    page("new-title").send_keys("A better one", Keys.ENTER)
    page.wait(lambda: page.titles() == ["A better one"])
    page.menu("rename")
    page("new-title").send_keys("never mind", Keys.ESCAPE)
    assert page("title").text == "A better one"
    page.menu("delete")
    page.wait(lambda: page.titles() == [])
    assert shown(page) == []
    page.press("Undo", "#toast")
    page.wait(lambda: page.titles() == ["A better one"])
    assert shown(page) == ["A title that is not good", "An answer."]
    page.browser.refresh()
    page.ready()
    assert page.titles() == ["A better one"]


def test_edit_and_repeat_keep_earlier_versions(page: Page, script: Script) -> None:
    page.ask("One")
    page.ask("Two")
    page.all(".user .actions button")[1].click()  # Edit of the first
    field = page.one(".edit textarea")
    field.clear()
    field.send_keys("Uno", Keys.ENTER)
    page.wait(lambda: page.finished() and shown(page) == ["Uno", "An answer."])
    assert [m["content"] for m in script.asked[-1]["messages"]] == ["Uno"]
    script.pieces = ["Another."]
    page.press("Regenerate")
    page.wait(lambda: page.finished() and shown(page) == ["Uno", "Another."])
    assert [count.text for count in page.all(".count")] == ["2/2", "2/2"]
    page.all("button[aria-label='Earlier version']")[0].click()
    page.wait(lambda: shown(page) == ["One", "An answer.", "Two", "An answer."])
    page.browser.refresh()
    page.ready()
    assert len(shown(page)) == 4
    page.check_accessible()


def test_export_and_import(page: Page, script: Script, tmp_path: Path) -> None:
    page.browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    script.pieces = ["**Yes**"]
    page.ask("Does it work?")
    for kind, suffix in (("export-markdown", "md"), ("export-json", "json")):
        page.menu(kind)
        page.wait((tmp_path / f"Does-it-work-.{suffix}").is_file)
    assert (tmp_path / "Does-it-work-.md").read_text() == (
        "# Does it work?\n\n## User\n\nDoes it work?\n\n## Assistant\n\n**Yes**\n"
    )
    read = json.loads((tmp_path / "Does-it-work-.json").read_text())
    assert [node["text"] for node in read["nodes"]] == ["Does it work?", "**Yes**"]
    page.menu("delete")
    page.wait(lambda: page.titles() == [])
    page("import-file").send_keys(str(tmp_path / "Does-it-work-.json"))
    page.wait(lambda: shown(page) == ["Does it work?", "Yes"])
    (tmp_path / "bad.json").write_text('{"nodes": [{"role": "user"}]}')
    page("import-file").send_keys(str(tmp_path / "bad.json"))
    page.wait(lambda: page("notice").is_displayed())
    assert page("notice-text").text == (
        "The conversation could not be imported: the file is not an exported conversation."
    )


def test_two_tabs_do_not_overwrite_each_other(page: Page, script: Script) -> None:
    page.ask("Shared")
    first = page.browser.current_window_handle
    identifier = page.script("return sessionStorage.getItem('conversation')")
    page.browser.switch_to.new_window("tab")
    try:
        page.browser.get(page.url)
        page.ready()
        page.press("Shared")
        page.wait(lambda: len(shown(page)) == 2)
        assert page.script("return sessionStorage.getItem('conversation')") == identifier
        page.ask("From the second")
        second = page.browser.current_window_handle
        page.browser.switch_to.window(first)
        page.wait(lambda: len(shown(page)) == 4)  # what the other tab saved is shown here
        script.hold.clear()
        page.say("At the same time, here")
        page.browser.switch_to.window(second)
        page.press("New conversation")
        page.press("Shared")
        page.menu("rename")
        page("new-title").send_keys("Renamed meanwhile", Keys.ENTER)
        page.wait(lambda: "Renamed meanwhile" in page.titles())
        page.browser.switch_to.window(first)
        script.hold.set()
        page.wait(page.finished)
        page.wait(lambda: set(page.titles()) == {"Renamed meanwhile", "Shared (copy)"})
        assert len(shown(page)) == 6
    finally:
        script.hold.set()
        for handle in page.browser.window_handles:
            if handle != first:
                page.browser.switch_to.window(handle)
                page.browser.close()
        page.browser.switch_to.window(first)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("indexedDB.open = () => { throw new Error('blocked'); }", "This browser keeps no data for this page"),
        (
            "IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); }",
            "The browser's storage is full",
        ),
    ],
)
def test_storage_that_is_blocked_or_full_is_told(page: Page, code: str, told: str) -> None:
    command = "Page.addScriptToEvaluateOnNewDocument"
    added = page.browser.execute_cdp_cmd(command, {"source": code})
    try:
        page.browser.refresh()
        page.ready()
        page.ask("Is this kept?")
        page.wait(lambda: page("notice").is_displayed())
        assert page("notice-text").text.startswith(told)
        assert shown(page) == ["Is this kept?", "An answer."]
        assert page.titles() == ["Is this kept?"]
        page.press("Dismiss")
        assert not page("notice").is_displayed()
    finally:
        page.browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_a_server_that_goes_and_comes_back(browser: Any) -> None:
    with scripted() as script:
        page = Page(browser, script.url).ready()
        script.pieces, script.reason = ["It began "], None
        page.ask("Are you there?")
        port = int(script.url.split(":")[2].split("/")[0])
    assert page.end() == "The server is gone."
    page.say("And now?")
    page.wait(lambda: page("state").text == "the server is gone; trying again")
    page.wait(lambda: page.finished() and page.end() == "The server is gone.")
    assert shown(page)[:3] == ["Are you there?", "It began", "And now?"]  # nothing is lost
    assert "ready" not in page("state").get_attribute("class")
    assert page("reconnect").is_displayed()
    with scripted(port) as script:
        page.ready()  # by itself
        assert not page("reconnect").is_displayed()
        script.pieces = ["Yes."]
        page.press("Try again")
        page.wait(lambda: page.finished() and shown(page)[-1] == "Yes.")
        assert len(shown(page)) == 4


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_told(page: Page, script: Script, status: int) -> None:
    script.status, script.message = status, "all places are taken"
    page.ask("Please")
    assert page.end() == "All places are taken. The server is busy; try again in a moment."
    assert page("state").get_attribute("textContent") == "ready"
    script.status = 200
    page.press("Try again")
    page.wait(lambda: page.finished() and shown(page) == ["Please", "An answer."])


def test_defaults_stand_in_the_form_and_are_not_sent(page: Page, script: Script) -> None:
    placeholders = [page(name).get_attribute("placeholder") for name in ("max_tokens", "temperature", "top_k", "seed")]
    assert placeholders == ["no limit", "0.35", "17", "random"]
    page.ask("Hello")
    assert set(script.asked[-1]) == {"stream", "stream_options", "return_progress", "model", "messages"}
    page.set(temperature=0.5, stops="END")
    page.browser.refresh()
    page.ready()
    page.ask("Again")
    assert (script.asked[-1]["temperature"], script.asked[-1]["stop"]) == (0.5, ["END"])
    page.press("Back to the defaults")
    page.ask("Once more")
    assert "temperature" not in script.asked[-1]


def test_a_model_that_cannot_chat_continues_text(browser: Any) -> None:
    with scripted() as script:
        script.template, script.pieces = "", [" time"]
        page = Page(browser, script.url).ready()
        assert page("text").is_selected()
        page("prompt").send_keys("Once upon a", Keys.CONTROL, Keys.ENTER)
        page.wait(page.finished)
        assert page.one(".whole .body").text == "Once upon a time"
        assert (script.asked[-1]["prompt"], script.asked[-1]["max_tokens"]) == ("Once upon a", -1)


def test_a_text_file_becomes_a_code_block(page: Page, script: Script, tmp_path: Path) -> None:
    (tmp_path / "notes.py").write_text("print('```')\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    page("file").send_keys(f"{tmp_path / 'notes.py'}\n{tmp_path / 'picture.png'}")
    page.wait(lambda: page("notice").is_displayed())
    assert page("notice-text").text == "picture.png is not a text file of at most 1 MiB."
    assert page("prompt").get_attribute("value") == "notes.py:\n````py\nprint('```')\n````\n"


def test_the_keyboard_reaches_everything(page: Page) -> None:
    page.ask("Hello")
    seen = set()
    for _ in range(40):
        focused = page.browser.switch_to.active_element
        seen.add(focused.get_attribute("id") or focused.text)
        focused.send_keys(Keys.TAB)
    assert seen >= {"new", "open-list", "model", "chat", "open-settings", "log", "Copy", "Edit", "Regenerate", "prompt",
                    "attach", "run", "system", "temperature", "theme"}  # fmt: skip
    assert page.browser.find_element(By.ID, "spoken").get_attribute("aria-live") == "polite"
