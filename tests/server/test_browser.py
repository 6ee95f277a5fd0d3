"""The page in a real Chromium, driven as a user would. TERNRUN_SCREENSHOTS names a folder for pictures of it.

Left out where Chromium and its driver are not installed (Debian: apt-get install chromium chromium-driver).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ternrun.api import load
from ternrun.server.settings import ServerConfig
from tests.fakes import fake_gguf, fake_weights
from tests.server.serving import Server, running
from tests.smollm2 import smollm2

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is missing: pip install selenium")

from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its chromedriver is installed here")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--window-size=1200,800",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    it = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield it
    it.quit()


@pytest.fixture(scope="module")
def real() -> Iterator[Server]:
    with running(ServerConfig(port=0), lambda: load(smollm2())) as it:
        yield it


class Page:
    """What a user sees and does."""

    def __init__(self, browser: Any, server: Server) -> None:
        self.browser, self.server = browser, server
        browser.get_log("performance")
        browser.get(server.url)

    def __call__(self, name: str) -> Any:
        return self.browser.find_element(By.ID, name)

    def wait(self, what: Callable[[], Any]) -> Any:
        return WebDriverWait(self.browser, 30, 0.02).until(lambda _: what())

    def set(self, **values: object) -> None:
        for name, value in values.items():
            self(name).clear()
            self(name).send_keys(str(value))

    def choose(self, mode: str) -> None:
        self.browser.find_element(By.CSS_SELECTOR, f"#{mode} + span").click()

    def answers(self) -> list[Any]:
        return self.browser.find_elements(By.CSS_SELECTOR, ".assistant")

    def tokens(self) -> list[Any]:
        return self.answers()[-1].find_elements(By.CSS_SELECTOR, ".token")

    def text(self) -> str:
        """Of the last answer, without its title and the given prompt."""
        script = (
            "return [...arguments[0].childNodes].filter(n => !['H2'].includes(n.nodeName) && n.className !== 'given')"
        )
        return str(self.browser.execute_script(f"{script}.map(n => n.textContent).join('')", self.answers()[-1]))

    def finished(self) -> bool:
        return bool(self("run").is_enabled() and self.answers())

    def picture(self, name: str) -> None:
        if folder := os.environ.get("TERNRUN_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            assert self.browser.save_screenshot(str(Path(folder) / f"{name}.png"))

    def check_accessible(self) -> None:
        """By the rules of axe, the usual oracle for that."""
        spec = find_spec("axe_playwright_python")  # for the script it carries: the browser is driven as it is
        assert spec, "axe is missing: pip install axe-playwright-python"
        assert spec.submodule_search_locations
        script = Path(spec.submodule_search_locations[0]) / "axe.min.js"
        self.browser.execute_script(script.read_text("utf-8"))
        found = self.browser.execute_async_script("axe.run().then(arguments[0])")["violations"]
        assert not found, [(v["id"], v["help"], [n["html"] for n in v["nodes"]]) for v in found]

    def check_alone(self) -> None:
        """It asked nobody but its own server, and nothing went wrong in it."""
        events = self.browser.get_log("performance")
        asked = re.findall(r'"requestWillBeSent".*?"url":"([^"]+)"', "".join(e["message"] for e in events))
        assert all(url.startswith(self.server.url) for url in asked), asked
        assert not [entry for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture
def page(browser: Any, real: Server) -> Page:
    page = Page(browser, real)
    page.wait(lambda: page("state").text == "ready")
    return page


def test_a_chat(page: Page) -> None:
    page.set(temperature=0, max_tokens=48, system="You answer in one sentence.")
    page("prompt").send_keys("Why is the sky blue?", Keys.ENTER)
    page.wait(page.finished)
    messages = [
        {"role": "system", "content": "You answer in one sentence."},
        {"role": "user", "content": "Why is the sky blue?"},
    ]
    sampling = {"temperature": 0, "max_tokens": 48, "top_p": 0.95}
    answer = page.server.ask("/v1/chat/completions", {"messages": messages, **sampling}).json
    text = answer["choices"][0]["message"]["content"]
    assert page.text() == text
    assert len(page.tokens()) == answer["usage"]["completion_tokens"]
    assert re.fullmatch(r"\d+ tokens, [\d.]+ a second, the first after \d+\.\d\d s", page("speed").text)
    assert page("speed").text.startswith(f"{answer['usage']['completion_tokens']} tokens")
    assert page("spoken").get_attribute("textContent").endswith(text)  # told to those who do not see it

    page("prompt").send_keys("And at night?", Keys.ENTER)
    page.wait(lambda: page.finished() and len(page.answers()) == 2)
    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "And at night?"}]
    second = page.server.ask("/v1/chat/completions", {"messages": messages, **sampling}).json
    assert page.text() == second["choices"][0]["message"]["content"]

    ActionChains(page.browser).move_to_element(page.tokens()[3]).perform()
    page.wait(lambda: page("tip").is_displayed())
    page.picture("chat")
    page.check_accessible()
    page.check_alone()


def test_probabilities_by_mouse_and_keyboard(page: Page) -> None:
    page.choose("text")
    page.set(prompt="The capital of France is", temperature=0, max_tokens=8)
    page("run").click()
    page.wait(page.finished)
    body = {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 8, "top_p": 0.95, "logprobs": 5}
    told = page.server.ask("/v1/completions", body).json["choices"][0]
    assert page.text() == told["text"]
    assert [t.get_attribute("textContent") for t in page.tokens()] == told["logprobs"]["tokens"]
    ActionChains(page.browser).move_to_element(page.tokens()[1]).perform()
    page.wait(lambda: page("tip").is_displayed())
    rows = page("tip-rows").find_elements(By.TAG_NAME, "tr")
    likeliest = sorted(told["logprobs"]["top_logprobs"][1].items(), key=lambda item: -item[1])
    assert [row.text.split()[0] for row in rows] == [
        token.replace(" ", "·").replace("\n", "↵") for token, _ in likeliest
    ]
    shown = float(rows[0].text.split()[-2])
    assert shown == pytest.approx(100 * 2.718281828 ** likeliest[0][1], abs=0.06)
    page.picture("completion")

    page("log").send_keys(Keys.ESCAPE, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert page.tokens()[1].get_attribute("class").split()[-1] == "here"
    assert page("spoken").get_attribute("textContent").startswith(told["logprobs"]["tokens"][1])
    page("log").send_keys(Keys.ESCAPE)
    assert not page("tip").is_displayed()
    page.check_accessible()


@pytest.mark.parametrize("by_key", [True, False])
def test_stop(page: Page, by_key: bool) -> None:
    page.choose("text")
    page.set(prompt="Once upon a time", max_tokens=4000)
    page("prompt").send_keys(Keys.CONTROL, Keys.ENTER)
    page.wait(lambda: page.answers() and len(page.tokens()) > 5)
    assert page("stop").is_enabled()
    if by_key:
        page("prompt").send_keys(Keys.ESCAPE)
    else:
        page("stop").click()
    page.wait(page.finished)
    kept = page.text()
    assert kept
    page.wait(lambda: page.server.model.driver.engine.load == (0, 0))
    assert page.text() == kept
    assert page("spoken").get_attribute("textContent").startswith("stopped")


def test_what_is_refused_is_told(page: Page) -> None:
    page.set(max_tokens=8)
    page.browser.execute_script("arguments[0].value = 'a'.repeat(40000)", page("prompt"))
    page("prompt").send_keys(Keys.ENTER)
    page.wait(lambda: page("notice").is_displayed())
    assert "the prompt has" in page("notice").text
    assert page("prompt").get_attribute("value").startswith("aaa")  # nothing that was typed is lost
    assert not page.answers()
    page.set(prompt="a")
    page("prompt").send_keys(Keys.ENTER)
    page.wait(page.finished)
    assert not page("notice").is_displayed()


def test_a_model_without_a_template_behind_a_key(browser: Any, tmp_path: Path) -> None:
    file = fake_gguf(tmp_path / "tiny.gguf", fake_weights(), general__name="tiny")
    with running(ServerConfig(port=0, api_keys=("the-right-key",)), lambda: load(file, threads=1)) as server:
        page = Page(browser, server)
        page.wait(lambda: page("notice").is_displayed())
        assert "API key" in page("notice").text
        page.picture("key")
        page("key").send_keys("the-right-key", Keys.TAB)
        page.wait(lambda: page("state").text.startswith("ready; this model cannot chat"))
        assert not page("chat").is_enabled()
        assert not page("notice").is_displayed()
        page.set(prompt="ab", max_tokens=20)
        page("run").click()
        page.wait(page.finished)
        assert page.tokens()


def test_a_narrow_window(page: Page) -> None:
    page.browser.set_window_size(400, 800)
    try:
        page.picture("narrow")
        assert page.browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        page.browser.set_window_size(1200, 800)
