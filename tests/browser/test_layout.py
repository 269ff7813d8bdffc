"""The page on a phone, by keyboard alone, in other colours, directions and languages; and axe-core's rules."""

from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests.browser.browser import Browser, ChatPage, running_browser
from tests.live_stack import PROJECT, LiveStack

AXE = PROJECT / ".axe" / "package" / "axe.min.js"
LONG_WORD = "Donaudampfschifffahrtsgesellschaft" * 6
RICH = (
    "[[say: # Heading\n\nSome **bold** text with `code` and a [link](https://example.org/).\n\n"
    "| a | b |\n|---|---|\n| 1 | 2 |\n\n"
    "```python\ndef f(x):\n    return 'y'  # a comment that is longer than a phone is wide, so that its block scrolls\n"
    "```\n\n- one\n- two\n\n"
    f"> quoted\n\n{LONG_WORD}]]"
)


def ask_rich(page: ChatPage) -> None:
    page.browser.execute_script("document.querySelector('#question').value = arguments[0]", RICH)
    page.one("#question").send_keys(Keys.ENTER)
    page.wait_for_end()


def overflow(page: ChatPage) -> int:
    """Return the pixels by which the page is wider than its window."""
    width: int = page.browser.execute_script(
        "return Math.max(document.documentElement.scrollWidth, document.querySelector('.scroller').scrollWidth)"
        " - window.innerWidth"
    )
    return width


def serious(browser: Browser) -> list[dict[str, Any]]:
    """Return the serious findings of axe-core on the page as it is now."""
    if not AXE.exists():
        pytest.skip("needs axe-core: make test-browser")
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    result = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    return [
        {"id": one["id"], "nodes": [node["html"][:200] for node in one["nodes"]]}
        for one in result["violations"]
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("width", [360, 390, 768, 1280, 1920])
def test_nothing_is_wider_than_the_window(page: ChatPage, width: int) -> None:
    page.browser.resize(width, 760, is_phone=width < 500)
    ask_rich(page)
    assert overflow(page) <= 0
    assert page.one("#question").is_displayed()
    page.browser.get(page.url + "/?view=memories")
    page.until(lambda: bool(page.one("#memory-list").text), what="the memories are listed")
    assert overflow(page) <= 0


def test_the_list_opens_on_a_phone(page: ChatPage) -> None:
    page.browser.resize(390, 760, is_phone=True)
    page.ask("[[say: hello]] phone")
    assert not page.one("#search").is_displayed()
    page.click("#menu")
    page.until(lambda: page.one("#search").is_displayed(), what="the list is shown")
    page.click("#new-chat")
    page.until(lambda: not page.one("#search").is_displayed(), what="the list is closed")


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_serious(page: ChatPage, colours: str) -> None:
    page.browser.set_media(prefers_color_scheme=colours)
    ask_rich(page)
    assert serious(page.browser) == []
    page.click("#settings-button")
    assert serious(page.browser) == []
    for path in ("/?view=memories", "/sign-in/", "/"):
        page.browser.get(page.url + path)
        assert serious(page.browser) == [], path


@pytest.mark.parametrize(("width", "colours"), [(1280, "light"), (360, "dark")])
def test_axe_finds_nothing_serious_in_what_opens(page: ChatPage, width: int, colours: str) -> None:
    page.browser.resize(width, 760, is_phone=width < 500)
    page.browser.set_media(prefers_color_scheme=colours)
    page.script_next_answer()
    page.ask("a question of many lines\n" * 30, wait=False)
    page.push(token="Text [1].", thought="hm")
    page.push(done=True, sources=[{"label": "1", "kind": "note", "title": "A note", "text": "Text.", "cited": True}])
    page.wait_for_end()
    findings = {"folded": serious(page.browser)}
    page.click(".sources .chip")
    findings["source"] = serious(page.browser)
    page.click("#source-dialog .icon-button")
    page.click(".thought summary")
    page.run("document.querySelector('.question [aria-label=Edit]').click()")
    findings["edit"] = serious(page.browser)
    page.give_files("#chat-view", "drop", {"a.txt": "text", "empty.txt": ""})
    page.until(lambda: bool(page.all(".toast.error")), what="the empty file is refused")
    findings["files"] = serious(page.browser)
    page.ask("[[say: listed]]")
    if width < 500:
        page.click("#menu")
    page.listed("listed")
    page.run("document.querySelector('#conversations li .icon-button').click()")
    findings["menu"] = serious(page.browser)
    page.all(".menu button")[0].click()
    findings["rename"] = serious(page.browser)
    assert {name: found for name, found in findings.items() if found} == {}


def test_an_error_page_is_accessible(page: ChatPage) -> None:
    page.browser.get(page.url + "/nothing/here")
    assert page.one("h1").text == "There is nothing here"
    page.browser.complaints()  # the browser logs the status 404
    assert serious(page.browser) == []


def test_by_keyboard_alone(page: ChatPage) -> None:
    page.until(lambda: page.browser.switch_to.active_element.get_attribute("id") == "question", what="it has the focus")
    ActionChains(page.browser).send_keys("[[say: by keys]]", Keys.ENTER).perform()
    page.until(lambda: page.answers() == ["by keys"], what="it is answered")
    page.wait_for_end()
    for _ in range(40):
        ActionChains(page.browser).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
        focused = page.browser.switch_to.active_element
        if focused.get_attribute("aria-label") == "Edit":
            break
    focused.send_keys(Keys.ENTER)
    page.until(lambda: bool(page.all(".edit textarea")), what="the question can be changed")
    ActionChains(page.browser).send_keys(Keys.ESCAPE).perform()
    page.until(lambda: page.questions() == ["[[say: by keys]]"], what="it is as it was")
    page.one("#settings-button").send_keys(Keys.ENTER)
    page.until(lambda: bool(page.all("#settings[open]")), what="the drawer is open")
    ActionChains(page.browser).send_keys(Keys.ESCAPE).perform()
    page.until(lambda: not page.all("#settings[open]"), what="the drawer is closed")
    assert page.browser.switch_to.active_element.get_attribute("id") == "settings-button"


def test_answers_and_versions_by_keyboard(page: ChatPage) -> None:
    def focused() -> str:
        return str(page.run("const one = document.activeElement; return one.ariaLabel || one.tagName"))

    page.ask("[[say: one]]")
    for number in (2, 3):
        page.one(".answer [aria-label='Answer again']").send_keys(Keys.ENTER)
        page.until(lambda: focused() == "Answer", what="the new answer has the focus")
        page.until(lambda number=number: page.texts(".versions") == [f"{number} / {number}"], what="a version")  # type: ignore[misc]
    page.one(".versions [aria-label='Previous version']").send_keys(Keys.ENTER)
    page.until(lambda: page.texts(".versions") == ["2 / 3"], what="the second is shown")
    page.until(lambda: focused() == "Previous version", what="the button has the focus again")
    ActionChains(page.browser).send_keys(Keys.ENTER).perform()
    page.until(lambda: page.texts(".versions") == ["1 / 3"], what="the first is shown")
    page.until(lambda: focused() == "Next version", what="the way on has the focus")


def test_the_menu_of_a_conversation_by_keyboard(page: ChatPage) -> None:
    page.ask("[[say: menu]] keys")
    title = page.listed("menu")

    def open_menu() -> bool:  # the end of an answer draws the list anew
        page.all("#conversations li .icon-button")[0].send_keys(Keys.ENTER)
        return True

    page.until(open_menu, what="the button was there")
    page.until(lambda: page.browser.switch_to.active_element.text == "Rename", what="the first action has the focus")
    ActionChains(page.browser).send_keys(Keys.ARROW_DOWN).perform()
    assert page.browser.switch_to.active_element.text == "Save as Markdown"
    ActionChains(page.browser).send_keys(Keys.ESCAPE).perform()
    page.until(lambda: not page.all(".menu"), what="the menu is closed")
    assert page.browser.switch_to.active_element.get_attribute("aria-label") == f"Actions for {title}"


def test_text_from_right_to_left(page: ChatPage) -> None:
    page.ask("[[say: שלום עולם\n\n- אחת\n\n```\ncode\n```]] مرحبا")
    direction = "return getComputedStyle(document.querySelector(arguments[0])).direction"
    assert page.run(direction, ".answer .block") == "rtl"
    assert page.run(direction, ".answer li") == "rtl"
    assert page.run(direction, ".answer pre") == "ltr"
    side = "return getComputedStyle(document.querySelector('.answer .block:has(ul) ul')).paddingRight"
    assert page.run(side) != "0px"
    page.browser.resize(360, 760, is_phone=True)
    assert overflow(page) <= 0


def test_a_transcript_can_be_read_on_a_phone(page: ChatPage) -> None:
    page.open("/?view=memories")
    page.browser.resize(360, 760, is_phone=True)
    lines = "1\n00:01:15,500 --> 00:01:18,000\nSarah: It is a long sentence that needs more than one line on a phone.\n"
    page.give_files("#memories-view", "drop", {"phone.srt": lines})
    page.until(lambda: any("phone" in card for card in page.texts(".card")), what="it is listed")
    page.run("document.querySelector('.card:has(.lines) summary').click()")
    page.until(lambda: bool(page.all(".lines p")), what="its lines are shown")
    # Times and names take one line each.
    heights = page.run(
        "return [...document.querySelector('.lines p').children].map((part) => part.clientHeight || part.offsetHeight)"
    )
    assert heights[0] < 40
    assert heights[1] < 40
    assert overflow(page) <= 0


def test_no_motion_where_none_is_wanted(page: ChatPage) -> None:
    page.browser.set_media(prefers_reduced_motion="reduce")
    page.ask("[[delay: 200]] [[count: 20]]", wait=False)
    name = page.browser.execute_script("return getComputedStyle(document.querySelector('.pulse')).animationName")
    assert name == "none"
    page.wait_for_end()


def test_colours_can_be_chosen_and_stay(page: ChatPage) -> None:
    page.click("#settings-button")
    Select(page.one("[name=theme]")).select_by_value("dark")
    page.open("/")
    assert page.browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 31)"


def test_in_german(chromium: str, service: LiveStack) -> None:
    with running_browser(chromium, language="de-DE") as browser:
        page = ChatPage(browser, service.url).open()
        assert page.one("#new-chat").text == "Neuer Chat"
        page.ask("[[delay: 20]] [[count: 30]]")
        assert "Token/s" in page.one(".answer .facts").text
        page.click("#settings-button")
        Select(page.one("[name=language]")).select_by_value("en")
        page.until(lambda: page.one("#new-chat").text == "New chat", what="the page is in English")
        assert browser.complaints() == []
