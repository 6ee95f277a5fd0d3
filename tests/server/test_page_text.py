"""What the page makes of answers: Markdown, hostile markup, reasoning, how an answer ended; and its layout."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.browsing import NARROW, WIDE, Keys, Page
from tests.server.scripted import Script, scripted

CODE = '''```python
def merge(left: list[int], right: list[int]) -> list[int]:
    """Merge two sorted lists into one."""
    merged, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if left[i] <= right[j]:  # keeps equal items in order
            merged.append(left[i])
            i += 1
        else:
            merged.append(right[j])
            j += 1
    return merged + left[i:] + right[j:]
```'''
MARKDOWN = f"""Two sorted lists can be merged in one pass. The function takes the **smaller head** each time:

{CODE}

## How fast it is

Each item is looked at once, so the time grows with `len(left) + len(right)`:

| Method | Time | Memory | Stable |
|:--|--:|--:|:--|
| `merge` | O(n + m) | O(n + m) | yes |
| `sorted(left + right)` | O(n + m) | O(n + m) | yes |
| insertion, one by one | O(n · m) | O(n) | yes |

1. Lists of *equal* length cost the most comparisons.
2. If one list is empty, none are needed:
   - the loop ends at once,
   - and the other list is copied.

> In practice [`heapq.merge`](https://docs.python.org/3/library/heapq.html) does the same for any number of iterables.
"""
HOSTILE = """<script>window.hit = 1</script>

<img src=x onerror="window.hit = 1"> ![a picture](https://outside.example/a.png)

<iframe src="https://outside.example"></iframe> <svg onload="window.hit = 1"><a href="javascript:hit=1">x</a></svg>

<style>* { display: none }</style> <form action="https://outside.example"><input name=q></form>

[one](javascript:window.hit=1) [two](data:text/html,x) [three](https://example.org) [four](/props)
[five](JaVaScRiPt:hit=1)

<p id=prompt style="position:fixed" class=primary data-x=1>seven</p>

```"><img src=x onerror=hit=1>
</code></pre><script>window.hit = 1</script>
```

| a |
|--|
| <math><mtext></mtext><style><img src=x onerror=hit=1></style></math> |
"""


@pytest.fixture
def script() -> Iterator[Script]:
    with scripted() as it:
        yield it


@pytest.fixture
def page(browser: Any, script: Script) -> Page:
    return Page(browser, script.url).ready()


def cut(text: str, size: int = 5) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


def test_markdown(page: Page, script: Script) -> None:
    script.pieces = cut(MARKDOWN)
    page.ask("Merge two sorted lists")
    code = page.one(".code code")
    assert code.get_attribute("textContent").strip() == "\n".join(CODE.splitlines()[1:-1])
    assert "monospace" in code.value_of_css_property("font-family")
    assert {span.text for span in page.all(".hljs-keyword")} >= {"def", "while", "if", "return"}
    assert [cell.text for cell in page.all("td")][:4] == ["merge", "O(n + m)", "O(n + m)", "yes"]
    assert page.all("td")[1].value_of_css_property("text-align") == "right"
    assert page.one("ol > li > ul > li").text == "the loop ends at once,"
    assert page.one("h4.title-2").text == "How fast it is"
    link = page.one("blockquote a")
    assert link.get_attribute("href") == "https://docs.python.org/3/library/heapq.html"
    assert (link.get_attribute("rel"), link.get_attribute("target")) == ("noopener noreferrer nofollow", "_blank")
    page.check_accessible()
    page.check_alone()


def test_code_is_copied_as_it_is(page: Page, script: Script) -> None:
    script.pieces = [CODE]
    page.script("navigator.clipboard.writeText = async text => { window.copied = text; }")
    page.ask("Code")
    page.press("Copy python code")
    assert page.wait(lambda: page.script("return window.copied")) == "\n".join(CODE.splitlines()[1:-1])
    assert page.one(".code button").text == "Copied"
    page.wait(lambda: page.one(".code button").text == "Copy")


def test_hostile_markup_does_nothing(page: Page, script: Script) -> None:
    script.pieces = cut(HOSTILE, 11)
    page.ask("Be nasty")
    time.sleep(0.2)
    assert page.script("return window.hit ?? null") is None
    for tag in ("script", "img", "iframe", "svg", "style", "form", "input", "math", "[style]", "[id]", "[data-x]"):
        assert not page.all(f"#log .markdown {tag}"), tag
    links = [link.get_attribute("href") for link in page.all("#log a[href]")]
    assert links == ["https://outside.example/a.png", "https://example.org/"]
    assert "window.hit = 1" in page.text()  # shown as it was written
    assert not page.all("#log .markdown .primary")
    page.check_alone()


def test_the_sanitizer_alone_holds(page: Page) -> None:
    """Even if what comes before it let markup through."""
    found = page.browser.execute_async_script(
        """const done = arguments[1];
        import(new URL("page/markdown.js", location).href).then(({sanitize}) => {
            const box = document.createElement("div");
            box.append(sanitize(arguments[0]));
            document.body.append(box);
            const found = [...box.querySelectorAll("*")].map(e => e.nodeName + [...e.attributes].map(a => a.name));
            setTimeout(() => { box.remove(); done([found, window.hit ?? 0]); }, 200);
        })""",
        '<img src=x onerror="hit=1"><script>hit=1</script><iframe srcdoc="<script>parent.hit=1</script>"></iframe>'
        "<svg><style>*{}</style></svg><form action=x><button formaction=javascript:hit=1>b</button></form>"
        '<a href="javascript:hit=1" onclick="hit=1">a</a><p style="x" id="y" class="primary">p</p>',
    )
    assert found == [["A", "P"], 0]


def test_half_a_fence_is_a_code_block_and_a_half_line_waits(page: Page, script: Script) -> None:
    script.pieces = ["Here it is:\n\n```python\nx = 1\n", "y = 2", "\n``"]
    script.hold.clear()
    page.say("Code")
    page.wait(lambda: page.all(".code") and "y = 2" in page.text())
    time.sleep(0.3)
    assert page.one(".code code").get_attribute("textContent") == "x = 1\ny = 2\n"
    first = page.one(".markdown > div")
    script.hold.set()
    page.wait(page.finished)
    assert first.is_displayed()  # what had not changed was not drawn anew


def test_reasoning_is_folded(page: Page, script: Script) -> None:
    script.pieces = cut("<think>Let me see:\n\nit is **four**.</think>The answer is 4.", 3)
    page.ask("What is 2 + 2?")
    assert page.text().strip() == "The answer is 4."
    assert not page.one(".reasoning .markdown").is_displayed()
    page.one(".reasoning summary").click()
    assert page.one(".reasoning strong").text == "four"
    script.pieces, script.thoughts = ["It is 6."], ["I add ", "three and three."]
    page.ask("And 3 + 3?")
    page.all(".reasoning summary")[-1].click()
    assert page.all(".reasoning .markdown")[-1].text == "I add three and three."
    sent = script.asked[-1]["messages"]
    assert [m["content"] for m in sent] == ["What is 2 + 2?", "The answer is 4.", "And 3 + 3?"]


def test_other_scripts_and_long_words(page: Page, script: Script) -> None:
    script.pieces = ["مرحبا بالعالم\n\n", "👩‍👩‍👧‍👦 family\n\n", "x" * 3000]
    page.resize(NARROW)
    page.ask("שלום")
    assert page.one(".markdown > div").value_of_css_property("direction") == "rtl"
    assert "👩‍👩‍👧‍👦" in page.text()
    assert page.one(".user .body").value_of_css_property("direction") == "rtl"
    assert page.script("return document.documentElement.scrollWidth <= innerWidth")


def test_a_long_answer_stays_fast_and_the_reader_may_scroll(page: Page, script: Script) -> None:
    script.pieces = [f"Paragraph {i} has some **words** in it.\n\n" for i in range(1500)]
    script.hold.clear()
    began = time.monotonic()
    page.say("A long one")
    page.wait(lambda: "Paragraph 1499" in page.text())
    assert time.monotonic() - began < 15
    log = page("log")
    assert page.script("const l = arguments[0]; return l.scrollHeight - l.scrollTop - l.clientHeight", log) < 60
    page.script("arguments[0].scrollTop = 500", log)
    page.wait(lambda: page("to-end").is_displayed())
    script.hold.set()
    page.wait(page.finished)
    assert page.script("return arguments[0].scrollTop", log) == 500
    page("to-end").click()
    assert page.script("const l = arguments[0]; return l.scrollHeight - l.scrollTop - l.clientHeight", log) < 60


@pytest.mark.parametrize(
    ("reason", "used", "told"),
    [
        ("length", 50, "Cut at 2 tokens."),
        ("length", 2048, "The context of 2,048 tokens is full. Start a new conversation."),
        ("stop", 50, ""),
        (None, 50, "The server is gone."),
    ],
)
def test_why_an_answer_ended(page: Page, script: Script, reason: str | None, used: int, told: str) -> None:
    script.pieces, script.reason, script.used = ["Once upon ", "a time"], reason, used
    page.ask("A story")
    assert page.end() == told
    assert bool([b for b in page.all(".end button") if b.text == "Go on"]) == (
        told[:3] in ("Cut", "The") and used == 50
    )
    if told.startswith("Cut"):
        script.pieces, script.reason = [" there was"], "stop"
        page.press("Go on")
        page.wait(lambda: page.finished() and "there was" in page.text())
        assert page.text().strip() == "Once upon a time there was"
        assert script.asked[-1]["messages"][-1] == {"role": "assistant", "content": "Once upon a time"}
        assert script.asked[-1]["continue_final_message"] is True


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_layout(page: Page, script: Script, size: tuple[int, int], theme: str) -> None:
    page.script("localStorage.setItem('ternrun theme', arguments[0]); sessionStorage.clear()", theme)
    page.resize(size)
    page.browser.refresh()
    page.ready()
    name = f"{'wide' if size == WIDE else 'narrow'}-{theme}"
    script.pieces, script.pause = cut(MARKDOWN), 0.002
    page.ask("Write a function that merges two sorted lists, and explain how fast it is.")
    bottom = page("form").rect["y"] + page("form").rect["height"]
    assert size[1] - 40 < bottom <= size[1]  # the composer is in view, at the end of the page
    assert page.script("return [document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [
        *size
    ]
    assert page("settings").is_displayed() == (size == WIDE)
    page.check_accessible()
    page.picture(f"table-{name}")
    page.script("document.getElementById('log').scrollTop = 0")
    page.picture(f"code-{name}")
    script.pieces, script.reason = (
        cut("Once upon a time, in a village by the sea, there lived a cartographer who", 6),
        "length",
    )
    page.ask("Tell me a story.")
    script.status, script.message = 400, "the prompt has 2,310 tokens, but the context holds 2,048 tokens"
    page.ask("Now retell it as a play in five acts.")
    page.check_accessible()
    page.picture(f"ends-{name}")
    if size == NARROW:
        page("open-list").click()
        page.picture(f"list-{name}")
        assert page("stage").get_attribute("inert")
        page.check_accessible()
        page.one("body").send_keys(Keys.ESCAPE)
        assert not page("conversations").is_displayed()
        page("open-settings").click()
        page.check_accessible()
        page.picture(f"settings-{name}")
