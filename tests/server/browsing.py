"""The page in a real Chromium, driven as a user would. TERNRUN_SCREENSHOTS names a folder for pictures of it.

Its tests are left out if Chromium and its driver are not installed (Debian: apt-get install chromium chromium-driver).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is missing: pip install selenium")

from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains as ActionChains  # noqa: E402
from selenium.webdriver.common.by import By as By  # noqa: E402
from selenium.webdriver.common.keys import Keys as Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
WIDE, NARROW = (1280, 800), (390, 844)

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--window-size=1280,800",
)  # fmt: skip


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A Chromium of its own; skips the test where none is installed."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("no Chromium with its chromedriver is installed here")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield browser
    finally:
        browser.quit()


class Page:
    """What a user sees and does."""

    def __init__(self, browser: Any, url: str, size: tuple[int, int] = WIDE) -> None:
        self.browser, self.url = browser, url
        self.resize(size)
        browser.get_log("performance")
        browser.get_log("browser")
        browser.get(url)

    def __call__(self, name: str) -> Any:
        return self.browser.find_element(By.ID, name)

    def all(self, selector: str) -> list[Any]:
        return list(self.browser.find_elements(By.CSS_SELECTOR, selector))

    def texts(self, selector: str) -> list[str]:
        """Of all such elements at one moment."""
        return list(
            self.script("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent.trim())", selector)
        )

    def one(self, selector: str) -> Any:
        return self.wait(lambda: self.all(selector))[0]

    def script(self, code: str, *given: Any) -> Any:
        return self.browser.execute_script(code, *given)

    def wait(self, what: Callable[[], Any], seconds: float = 30) -> Any:
        waiting = WebDriverWait(self.browser, seconds, 0.02, (StaleElementReferenceException,))  # drawn anew meanwhile
        return waiting.until(lambda _: what())

    def ready(self) -> Page:
        self.wait(lambda: self("state").get_attribute("textContent") == "ready")
        return self

    def resize(self, size: tuple[int, int]) -> None:
        shape = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)

    def set(self, **values: object) -> None:
        if not self("settings").is_displayed():
            self("open-settings").click()
        if not self("seed").is_displayed():
            self.one("#more > summary").click()
        for name, value in values.items():
            self(name).clear()
            self(name).send_keys(str(value))

    def probabilities(self) -> None:
        self("probabilities").click()

    def choose(self, mode: str) -> None:
        self.one(f"#{mode} + span").click()

    def say(self, text: str) -> None:
        self("prompt").send_keys(text, Keys.ENTER)

    def ask(self, text: str) -> None:
        """Send it, and wait for the end of the answer."""
        before = len(self.all(".message"))
        self.say(text)
        self.wait(lambda: len(self.all(".message")) > before and self.finished())

    def press(self, label: str, inside: str = "") -> None:
        """The last button with that text."""

        def click() -> bool:
            script = """return [...document.querySelectorAll(arguments[0])].findLast(
                e => e.textContent.trim() === arguments[1] || e.ariaLabel === arguments[1])"""
            found = self.script(script, f"{inside} button", label)
            if found:
                found.click()
            return bool(found)

        self.wait(click)

    def menu(self, name: str) -> None:
        self.one("#menu > summary").click()
        self(name).click()

    def answers(self) -> list[Any]:
        return self.all(".assistant")

    def tokens(self) -> list[Any]:
        return list(self.answers()[-1].find_elements(By.CSS_SELECTOR, ".token"))

    def text(self) -> str:
        """Of the last answer, without its title and the given prompt."""
        return str(
            self.script(
                "const b = arguments[0].querySelector('.body').cloneNode(true);"
                "b.querySelector('.given')?.remove(); return b.textContent",
                self.answers()[-1],
            )
        )

    def end(self) -> str:
        """Why the last answer ended."""
        return "".join(one.text for one in self.answers()[-1].find_elements(By.CSS_SELECTOR, ".end > span"))

    def titles(self) -> list[str]:
        return self.texts("#list .name")

    def finished(self) -> bool:
        return bool(self("run").is_displayed() and self.answers())

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
        self.script(script.read_text("utf-8"))
        found = self.browser.execute_async_script("axe.run().then(arguments[0])")["violations"]
        assert not found, [(v["id"], v["help"], [n["html"] for n in v["nodes"]]) for v in found]

    def check_alone(self) -> None:
        """It asked nobody but its own server, and nothing went wrong in it."""
        events = self.browser.get_log("performance")
        asked = re.findall(r'"requestWillBeSent".*?"url":"([^"]+)"', "".join(e["message"] for e in events))
        assert all(url.startswith((self.url, "blob:")) for url in asked), asked
        assert not [entry for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]
