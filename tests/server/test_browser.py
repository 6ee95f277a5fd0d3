"""The page with models: what it shows is what the server answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ternrun.api import load
from ternrun.server.settings import ServerConfig
from tests.fakes import fake_gguf, fake_weights
from tests.server.browsing import NARROW, ActionChains, Keys, Page
from tests.server.serving import TEMPLATE, Server, running
from tests.smollm2 import smollm2


@pytest.fixture(scope="module")
def real() -> Iterator[Server]:
    with running(ServerConfig(port=0), lambda: load(smollm2())) as it:
        yield it


@pytest.fixture
def page(browser: Any, real: Server) -> Page:
    page = Page(browser, real.url + "/")
    page.script("localStorage.clear(); sessionStorage.clear()")
    browser.refresh()
    return page.ready()


def test_a_chat(page: Page, real: Server) -> None:
    page.set(temperature=0, max_tokens=48, system="You answer in one sentence.")
    page.ask("Why is the sky blue?")
    messages = [
        {"role": "system", "content": "You answer in one sentence."},
        {"role": "user", "content": "Why is the sky blue?"},
    ]
    sampling = {"temperature": 0, "max_tokens": 48}
    answer = real.ask("/v1/chat/completions", {"messages": messages, **sampling}).json
    text = answer["choices"][0]["message"]["content"]
    assert page.text().split() == text.split()
    figures = page.answers()[-1].find_element("css selector", ".figures").text
    tokens = answer["usage"]["completion_tokens"]
    used = answer["usage"]["total_tokens"]
    expected = rf"{tokens} tokens · [\d.,]+ tokens/s · first after \d+\.\d\d s · context {used} of [\d,]+"
    assert re.fullmatch(expected, figures)
    assert page("spoken").get_attribute("textContent").endswith(text)  # told to those who do not see it

    page.ask("And at night?")
    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "And at night?"}]
    second = real.ask("/v1/chat/completions", {"messages": messages, **sampling}).json
    assert page.text().split() == second["choices"][0]["message"]["content"].split()
    page.check_accessible()
    page.check_alone()


def test_python_code_is_a_block_with_a_copy_button(page: Page) -> None:
    page.set(temperature=0, max_tokens=200)
    page.ask("Write a Python function that returns the sum of a list, in a code block.")
    font = page.script("return getComputedStyle(document.querySelector('.code code')).fontFamily")
    assert "monospace" in font
    assert page.all(".code .hljs-keyword")
    page.press("Copy python code")
    page.wait(lambda: page.all(".code button")[-1].text in ("Copied", "Not copied"))
    page.picture("real-code")


def test_a_cut_answer_goes_on_where_it_ended(page: Page, real: Server) -> None:
    page.set(temperature=0, max_tokens=12)
    page.ask("Tell me a story.")
    assert page.end() == "Cut at 12 tokens."
    begun = page.text()
    page.press("Go on")
    page.wait(lambda: page.finished() and page.text() != begun)
    message = {"role": "user", "content": "Tell me a story."}
    whole = real.ask("/v1/chat/completions", {"messages": [message], "temperature": 0, "max_tokens": 24}).json
    assert page.text().split() == whole["choices"][0]["message"]["content"].split()
    assert len(page.answers()) == 1
    assert page.end() == "Cut at 12 tokens."


def test_probabilities_by_mouse_and_keyboard(page: Page, real: Server) -> None:
    page.choose("text")
    page.set(prompt="The capital of France is", temperature=0, max_tokens=8)
    page.probabilities()
    page("run").click()
    page.wait(page.finished)
    body = {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 8, "logprobs": 5}
    told = real.ask("/v1/completions", body).json["choices"][0]
    assert page.text() == told["text"]
    assert [t.get_attribute("textContent") for t in page.tokens()] == told["logprobs"]["tokens"]
    ActionChains(page.browser).move_to_element(page.tokens()[1]).perform()
    page.wait(lambda: page("tip").is_displayed())
    rows = page("tip-rows").find_elements("tag name", "tr")
    likeliest = sorted(told["logprobs"]["top_logprobs"][1].items(), key=lambda item: -item[1])
    assert [row.text.split()[0] for row in rows] == [
        token.replace(" ", "·").replace("\n", "↵") for token, _ in likeliest
    ]
    shown = float(rows[0].text.split()[-2])
    assert shown == pytest.approx(100 * 2.718281828 ** likeliest[0][1], abs=0.06)
    page.picture("probabilities")

    page("log").send_keys(Keys.ESCAPE, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert page.tokens()[1].get_attribute("class").split()[-1] == "here"
    assert page("spoken").get_attribute("textContent").startswith(told["logprobs"]["tokens"][1])
    page("log").send_keys(Keys.ESCAPE)
    assert not page("tip").is_displayed()
    page.check_accessible()
    page.probabilities()
    assert not page.tokens()
    assert page.text() == told["text"]


@pytest.mark.parametrize("by_key", [True, False])
def test_stop(page: Page, real: Server, by_key: bool) -> None:
    page.choose("text")
    page.set(prompt="Once upon a time", max_tokens=4000)
    page("prompt").send_keys(Keys.CONTROL, Keys.ENTER)
    page.wait(lambda: page.answers() and len(page.text()) > 20)
    if by_key:
        page("prompt").send_keys(Keys.ESCAPE)
    else:
        page("stop").click()
    page.wait(page.finished)
    kept = page.text()
    page.wait(lambda: real.model.driver.engine.load == (0, 0))
    assert page.text() == kept
    assert page.end() == "Stopped by you."
    assert page("spoken").get_attribute("textContent").startswith("Stopped")


def test_what_is_refused_is_told(page: Page, real: Server) -> None:
    page.set(max_tokens=8, temperature=0)
    page.script("arguments[0].value = 'a'.repeat(40000)", page("prompt"))
    page("prompt").send_keys(Keys.ENTER)
    page.wait(page.finished)
    assert page.end().startswith("The prompt has")
    assert "aaa" in page.one(".user .body").text  # nothing that was typed is lost
    page.ask("Hello")
    assert page.end() == "Cut at 8 tokens."
    body = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 8}
    answer = real.ask("/v1/chat/completions", body).json["choices"][0]["message"]["content"]
    assert page.text().split() == answer.split()
    page.set(temperature=-1)
    page.ask("And now?")
    assert page.end().startswith("Temperature: ")


def test_a_model_without_a_template_behind_a_key(browser: Any, tmp_path: Path) -> None:
    file = fake_gguf(tmp_path / "tiny.gguf", fake_weights(), general__name="tiny")
    with running(ServerConfig(port=0, api_keys=("the-right-key",)), lambda: load(file, threads=1)) as server:
        page = Page(browser, server.url + "/", NARROW)
        page.wait(lambda: page("state").text == "an API key is needed")
        page.wait(lambda: page.script("return document.activeElement.id") == "key")
        page("key").send_keys("the-wrong-key", Keys.TAB)
        page.wait(lambda: page("state").text == "an API key is needed")
        page("key").clear()
        page("key").send_keys("the-right-key", Keys.TAB)
        page.ready()
        assert not page("chat").is_enabled()
        page.press("Close", "#settings")
        assert page("no-chat").text == "This model cannot chat; it continues text."
        page.set(max_tokens=20)
        page.press("Close", "#settings")
        page("prompt").send_keys("ab")
        page("run").click()
        page.wait(page.finished)
        assert page.text()
        browser.refresh()
        page.ready()  # the key is kept for this tab


def test_the_carried_model_writes_what_the_readme_shows(browser: Any) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    shown = readme.split('$ pip install . && ternrun complete "def fibonacci(n):"\n')[1].split("```")[0]
    with running(ServerConfig(port=0), load) as server:
        page = Page(browser, server.url + "/").ready()
        assert page("text").is_selected()
        assert page("temperature").get_attribute("placeholder") == "0"
        assert page("repeat_penalty").get_attribute("placeholder") == "1.1"
        page("prompt").send_keys("def fibonacci(n):", Keys.CONTROL, Keys.ENTER)
        page.wait(page.finished)
        assert page.one(".whole .body").text.strip() == shown.strip()
        assert page.end() == ""
        page.picture("completion")


def test_several_models(browser: Any, path: Path, tmp_path: Path) -> None:
    other = fake_gguf(
        tmp_path / "other.gguf", fake_weights(seed=1), tokenizer__chat_template=TEMPLATE, general__sampling__temp=0.25
    )
    models = {"one": lambda: load(path, threads=1), "other": lambda: load(other, threads=1)}
    with running(ServerConfig(port=0, defaults={"top_k": 7}), models) as server:
        page = Page(browser, server.url + "/").ready()
        assert [option.text for option in page.all("#model option")] == ["one", "other"]
        assert [page(n).get_attribute("placeholder") for n in ("temperature", "top_k")] == ["1", "7"]
        page.script("arguments[0].value = 'other'; arguments[0].dispatchEvent(new Event('change'))", page("model"))
        page.wait(lambda: page("temperature").get_attribute("placeholder") == "0.25")
        page.set(max_tokens=4)
        page.ask("ab")
        browser.refresh()
        page.ready()
        assert page("model").get_attribute("value") == "other"
