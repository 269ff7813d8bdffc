"""Reading an answer: what its Markdown becomes, what can be copied and folded, and where the page moves by itself."""

from functools import partial

import httpx
import pytest

from tests.browser.browser import ChatPage

PARAGRAPHS = "\n\n".join(f"paragraph {number}" for number in range(70))
PLACE = "const s = document.querySelector('.scroller'); return [s.scrollTop, s.scrollHeight - s.clientHeight]"


def stored(page: ChatPage, answer: str, question: str = "please") -> None:
    """Open a conversation with this answer."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    body = {"messages": [*messages, {"role": "user", "content": "[[say: the end]]"}], "max_tokens": 9}
    conversation = httpx.post(f"{page.url}/chat", json=body, timeout=60).raise_for_status().json()["conversation_id"]
    page.open(f"/?c={conversation}")
    page.until(lambda: page.answers()[-1:] == ["the end"], what="it is shown")


def place(page: ChatPage) -> tuple[float, float]:
    """Return where the conversation is scrolled to, and where its end is."""
    at, end = page.run(PLACE)
    return at, end


def wheel(page: ChatPage, pixels: int) -> None:
    event = {"type": "mouseWheel", "x": 700, "y": 300, "deltaX": 0, "deltaY": pixels}
    page.browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)


@pytest.mark.parametrize(
    ("formula", "selector", "text"),
    [
        ("so $a_1 * b_2 * c_3$ is", "code", "$a_1 * b_2 * c_3$"),
        (r"so \(e^{i\pi}\) is", "code", r"\(e^{i\pi}\)"),
        (r"so \[x\\y\] is", "code", r"\[x\\y\]"),
        ("so $x$ is", "code", "$x$"),
        ("$$\n\\sum_{i=1}^{n} x_i * y_i \\\\\n\\int_0^1\n$$", "pre code", "\\sum_{i=1}^{n} x_i * y_i \\\\\n\\int_0^1"),
        ("\\[\nE = m * c^2\n\\]", "pre code", "E = m * c^2"),
        (r"so $a < b$ & \(<b>c</b>\)", "code:last-of-type", r"\(<b>c</b>\)"),
    ],
)
def test_a_formula_is_shown_as_it_was_written(page: ChatPage, formula: str, selector: str, text: str) -> None:
    stored(page, formula)
    assert page.texts(f".answer .markdown {selector}")[:1] == [text]


@pytest.mark.parametrize(
    "money",
    [
        "it costs $5 and $10",
        "from $5 to 10$ and more",
        "$HOME/bin:$PATH",
        "a $ b",
        "$",
        "$$",
        "$ x_1 $",
        r"\( alone",
        "$1_000",
    ],
)
def test_dollars_are_not_formulas(page: ChatPage, money: str) -> None:
    stored(page, money)
    assert page.answers()[0] == money.replace("\\", "")
    assert page.all(".answer code") == []


FORMULAS = ["$" * 60_000, "\\(" * 30_000, "$$ x " * 20_000, "\n$$" * 20_000, "a $ " * 20_000]
EMPHASIS = ["*a$" * 20_000, "a*_" * 20_000, "**b" * 20_000]
NESTING = ["> " * 20_000, "1. " * 20_000, "- " * 20_000 + "x"]


@pytest.mark.parametrize("hostile", [*FORMULAS, *EMPHASIS, *NESTING])
def test_hostile_texts_take_no_time(page: ChatPage, hostile: str) -> None:
    page.script_next_answer()
    page.ask("a long one", wait=False)
    page.push(token=hostile)
    page.push(done=True)
    page.wait_for_end()
    assert page.answer() != ""


def test_columns_of_a_table_are_aligned_as_written(page: ChatPage) -> None:
    stored(page, "| a | b | c |\n|---|--:|:-:|\n| 1 | 2 | 3 |")
    script = "return [...document.querySelectorAll('.answer td')].map((cell) => getComputedStyle(cell).textAlign)"
    assert page.run(script) == ["start", "right", "center"]


def test_answers_code_and_questions_are_copied(page: ChatPage) -> None:
    page.browser.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    stored(page, "Look: **this**\n\n```python\nprint('x')\n```", question="how *so*?")
    read = "navigator.clipboard.readText().then(arguments[0])"
    for selector, text in (
        (".answer .copy-code", "print('x')\n"),
        (".answer footer [aria-label=Copy]", "Look: **this**\n\n```python\nprint('x')\n```"),
        (".question [aria-label=Copy]", "how *so*?"),
    ):
        page.all(selector)[0].click()
        page.until(lambda: bool(page.all(".done")), what="the button shows that it was copied")
        assert page.browser.execute_async_script(read) == text
        page.until(lambda: not page.all(".done"), what="the button is as before")
    assert page.all(".answer .hljs-string, .answer .hljs-built_in") != []


def ends_with(page: ChatPage, text: str) -> bool:
    return page.answer().endswith(text)


def test_a_reader_at_the_end_sees_what_comes(page: ChatPage) -> None:
    page.script_next_answer()
    page.ask("a long one", wait=False)
    for part in range(4):
        page.push(token=f"{PARAGRAPHS}\n\npart {part}\n\n")
        page.until(partial(ends_with, page, f"part {part}"), what="it is drawn")
        at, end = place(page)
        assert end - at < 2
    page.push(done=True)
    page.wait_for_end()
    at, end = place(page)
    assert end - at < 2


def test_a_reader_who_scrolls_up_stays_there_until_the_end_is_reached_again(page: ChatPage) -> None:
    page.script_next_answer()
    page.ask("a long one", wait=False)
    page.push(token=PARAGRAPHS)
    page.until(lambda: page.answer().endswith("paragraph 69"), what="it is drawn")
    # Less than one notch of a wheel.
    wheel(page, -30)
    page.until(lambda: place(page)[1] - place(page)[0] > 20, what="the page has moved")
    before, _ = place(page)
    page.push(token=f"\n\n{PARAGRAPHS}\n\nmore")
    page.until(lambda: page.answer().endswith("more"), what="it is drawn")
    assert place(page)[0] == before
    wheel(page, 100_000)
    page.until(lambda: place(page)[1] - place(page)[0] < 2, what="the end is reached")
    page.push(token=f"\n\n{PARAGRAPHS}\n\nlast")
    page.until(lambda: page.answer().endswith("last"), what="it is drawn")
    at, end = place(page)
    assert end - at < 2
    wheel(page, -900)
    page.until(lambda: place(page)[1] - place(page)[0] > 500, what="the page has moved")
    before, _ = place(page)
    page.push(done=True)
    page.wait_for_end()
    assert place(page)[0] == before


def test_a_button_leads_back_to_the_end(page: ChatPage) -> None:
    page.script_next_answer()
    page.ask("a long one", wait=False)
    page.push(token=PARAGRAPHS)
    page.until(partial(ends_with, page, "paragraph 69"), what="it is drawn")
    assert not page.one("#to-end").is_displayed()
    wheel(page, -900)
    page.until(lambda: page.one("#to-end").is_displayed(), what="the button is shown")
    page.click("#to-end")
    page.until(lambda: not page.one("#to-end").is_displayed(), what="the button is gone")
    page.push(token=f"\n\n{PARAGRAPHS}\n\nmore")
    page.until(partial(ends_with, page, "more"), what="it is drawn")
    at, end = place(page)
    assert end - at < 2
    page.push(done=True)
    page.wait_for_end()


def test_a_long_question_is_folded(page: ChatPage) -> None:
    stored(page, "[[say: fine]]", question="a line\n" * 60)
    height = "return document.querySelector('.question .bubble').clientHeight"
    folded = page.run(height)
    page.click(".question .fold-button")
    assert page.one(".question .fold-button").get_attribute("aria-expanded") == "true"
    assert page.run(height) > 3 * folded
    page.click(".question .fold-button")
    assert page.run(height) == folded
    assert page.run("return document.querySelectorAll('.fold-button').length") == 1
