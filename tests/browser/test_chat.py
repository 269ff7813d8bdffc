"""A conversation in the browser: streaming, stop, reload, edit, versions, tabs, and the list beside it."""

import json
import time

import pytest
from selenium.webdriver.common.action_chains import ActionChains

from tests.browser.browser import ChatPage, running_browser
from tests.live_stack import running_stack, wait_until

SLOW = "[[delay: 60]] [[count: 40]]"
WHOLE = "".join(f"{number} " for number in range(1, 41)).strip()


def test_an_answer_streams(page: ChatPage) -> None:
    page.ask(SLOW, wait=False)
    page.until(lambda: "3" in page.answer() and page.answer() != WHOLE, what="a part of the answer is shown")
    page.wait_for_end()
    assert page.answer() == WHOLE
    assert "fake-it" in page.one(".answer .facts").text
    assert "tokens/s" in page.one(".answer .facts").text
    assert page.browser.current_url.startswith(f"{page.url}/?c=")


def test_markdown_is_shown_and_markup_is_not(page: ChatPage) -> None:
    page.ask("[[say: **bold** <img src=x onerror=alert(1)> <script>alert(1)</script> [go](javascript:alert(1)) `a<b`]]")
    answer = page.one(".answer .markdown")
    assert page.one(".answer .markdown strong").text == "bold"
    assert page.one(".answer .markdown code").text == "a<b"
    html = answer.get_attribute("innerHTML") or ""
    assert "<img" not in html
    assert "<script" not in html
    assert "javascript:" not in html


@pytest.mark.parametrize(
    "forged",
    [
        '<div class="toasts">x</div>',
        '<div class="code"><div class="toasts">x</div></div>',
        '<div class="table toasts">x</div>',
        '<pre><code class="toasts">x</code></pre>',
        '<pre class="toasts"><code>x</code></pre>',
        '<div class="code"><pre><code><b class="toasts">x</b></code></pre></div>',
    ],
)
def test_a_text_cannot_use_the_classes_of_the_page(page: ChatPage, forged: str) -> None:
    page.ask(f"[[say: {forged}]]")
    assert page.answer().splitlines()[-1] == "x"
    assert page.all(".answer .markdown .toasts") == []


def test_a_text_requests_nothing(page: ChatPage) -> None:
    """The fixture looks at the requests, and at the violations of the policy, which an attempt would be."""
    table = '<table background="//elsewhere.example/a"><tr><td background="//elsewhere.example/b">x</td></tr></table>'
    page.ask(f'[[say: {table}<input type="image" src="//elsewhere.example/c">]]')
    assert "x" in page.answer()
    html = page.one(".answer .markdown").get_attribute("innerHTML") or ""
    assert "elsewhere" not in html


def test_a_link_whose_address_is_defined_below(page: ChatPage) -> None:
    page.ask("[[delay: 30]] [[say: see [the page][1] and [2]\n\n[1]: https://example.org/a\n]]")
    assert page.one(".answer .markdown a").get_attribute("href") == "https://example.org/a"
    assert page.answer() == "see the page and [2]"


def test_a_question_is_text(page: ChatPage) -> None:
    page.ask("<b>x</b> **y** &amp;")
    assert page.questions() == ["<b>x</b> **y** &amp;"]


def test_stop_keeps_the_text_so_far(page: ChatPage) -> None:
    page.ask("[[delay: 80]] [[count: 500]]", wait=False)
    page.until(lambda: "4" in page.answer(), what="some text is there")
    page.click("#send")
    page.wait_for_end()
    assert page.answer().startswith("1 2 3")
    assert "Stopped." in page.one(".answer footer").text
    text = page.answer()
    page.open(page.browser.current_url.removeprefix(page.url))
    page.until(lambda: page.answers() == [text], what="the stored answer is the one that was shown")


def test_escape_stops_too(page: ChatPage) -> None:
    page.ask("[[delay: 80]] [[count: 500]]", wait=False)
    page.until(lambda: "2" in page.answer(), what="some text is there")
    page.one("#question").send_keys("\ue00c")
    page.wait_for_end()
    assert "Stopped." in page.one(".answer footer").text


def test_reload_in_mid_answer(page: ChatPage) -> None:
    page.ask("[[delay: 120]] [[count: 60]]", wait=False)
    page.until(lambda: "5" in page.answer(), what="some text is there")
    page.browser.refresh()
    page.until(lambda: page.answer().startswith("1 2 3 4 5"), what="the text is there again")
    assert page.all(".answer.running") != []
    page.wait_for_end()
    assert page.answer().split() == [str(number) for number in range(1, 61)]


def test_an_answer_goes_on_without_its_page(page: ChatPage) -> None:
    page.ask("[[delay: 120]] [[count: 30]]", wait=False)
    page.until(lambda: "c=" in page.browser.current_url, what="the conversation has its address")
    address = page.browser.current_url
    page.browser.get("about:blank")
    time.sleep(7)  # longer than STREAM_GRACE_SECS
    page.browser.get(address)
    page.until(lambda: page.answer().endswith(" 30"), what="the answer was made to its end")


def test_two_tabs_are_in_step(page: ChatPage) -> None:
    page.ask("[[say: first]]")
    address, first = page.browser.current_url, page.browser.current_window_handle
    page.browser.switch_to.new_window("tab")
    second = page.browser.current_window_handle
    page.browser.get(address)
    page.until(lambda: page.answers() == ["first"], what="the second tab shows the conversation")
    page.browser.switch_to.window(first)
    page.ask(SLOW, wait=False)
    page.browser.switch_to.window(second)
    page.until(lambda: len(page.answers()) == 2 and "3" in page.answer(), what="the second tab streams it, too")
    page.wait_for_end()
    assert page.answers() == ["first", WHOLE]
    page.browser.switch_to.window(first)
    page.wait_for_end()
    assert page.answers() == ["first", WHOLE]


def test_an_edited_question_is_a_version(page: ChatPage) -> None:
    page.ask("[[say: the first one]] please")
    page.ask("[[say: and more]]")
    page.browser.execute_script("document.querySelectorAll('.question [aria-label=Edit]')[0].click()")
    area = page.one(".edit textarea")
    area.clear()
    area.send_keys("[[say: the other one]] please", "\ue007")
    page.until(lambda: page.answers() == ["the other one"], what="the changed question is answered")
    page.until(lambda: page.one(".versions").text.split() == ["2", "/", "2"], what="it is the second of two")
    page.click(".versions [aria-label='Previous version']")
    page.until(lambda: page.answers() == ["the first one", "and more"], what="the first version is shown")
    assert page.all(".versions:not([hidden])")[0].text.split() == ["1", "/", "2"]
    listed = [title for title in page.conversations() if "please" in title]
    assert len(listed) == 1


def test_a_question_that_is_changed_too_early_is_not_lost(page: ChatPage) -> None:
    page.ask("[[delay: 60]] [[count: 20]]", wait=False)
    page.browser.execute_script("document.querySelector('.question [aria-label=Edit]').click()")
    area = page.one(".edit textarea")
    area.clear()
    area.send_keys("[[say: changed]]", "\ue007")
    page.wait_for_end()
    assert area.get_property("value") == "[[say: changed]]"
    page.until(
        lambda: bool(page.browser.execute_script("return document.querySelector('#title').innerText")), what="ids"
    )
    area.send_keys("\ue007")
    page.until(lambda: page.answers() == ["changed"], what="it is answered now")
    assert page.questions() == ["[[say: changed]]"]


def test_a_question_sent_again_keeps_its_system_prompt(page: ChatPage) -> None:
    page.click("#settings-button")
    page.one("[name=system_prompt]").send_keys("Answer in rhymes.")
    page.click("#settings-close")
    page.browser.execute_script(
        "const whole = window.fetch;"
        "window.fetch = (path, options) => {"
        "  if (path !== '/api/conversations/') return whole(path, options);"
        "  window.fetch = whole;"
        "  return Promise.reject(new TypeError('lost'));"
        "};"
    )
    page.ask("[[say: ok]]")
    assert "cannot be reached" in page.one(".answer .end.error").text
    page.click(".answer [aria-label='Answer again']")
    page.until(lambda: page.answers() == ["ok"], what="it is answered")
    page.wait_for_end()
    page.open(page.browser.current_url.removeprefix(page.url))
    page.until(lambda: page.answers() == ["ok"], what="the conversation is shown")
    assert page.one("[name=system_prompt]").get_property("value") == "Answer in rhymes."


def test_answered_again(page: ChatPage) -> None:
    page.ask("say something")
    page.click(".answer [aria-label='Answer again']")
    page.until(lambda: page.one(".versions").text.split() == ["2", "/", "2"], what="there are two versions")
    page.click(".answer [aria-label='Answer again']")
    page.until(lambda: page.one(".versions").text.split() == ["3", "/", "3"], what="there are three versions")
    page.click(".versions [aria-label='Previous version']")
    page.until(lambda: page.one(".versions").text.split() == ["2", "/", "3"], what="the second is shown")


def test_the_place_in_the_queue_is_shown(page: ChatPage) -> None:
    for _ in range(2):
        page.open("/")
        page.ask("[[delay: 150]] [[count: 25]]", wait=False)
        page.until(lambda: "c=" in page.browser.current_url, what="it has begun")
    page.open("/")
    page.ask("[[say: at last]]", wait=False)
    page.until(lambda: "1st in line" in page.one(".answer .status").text, what="the place is shown")
    page.wait_for_end()
    assert page.answer() == "at last"


def test_a_refusal_is_shown_and_can_be_repeated(page: ChatPage) -> None:
    page.browser.execute_script(
        "document.querySelector('#question').value = 'x'.repeat(300000);"
        "document.querySelector('#composer').requestSubmit()"
    )
    page.until(lambda: bool(page.all(".answer .end.error")), what="the refusal is shown")
    assert "context" in page.one(".answer .end.error").text
    page.browser.logged("browser")  # the browser logs the status 413
    page.ask("[[say: fine]]")
    assert page.answers() == ["fine"]


def test_rename_search_and_delete_with_a_way_back(page: ChatPage) -> None:
    page.ask("[[say: zebra]] one")
    title = page.listed("zebra")
    page.choose(title, "Rename")
    page.one("#conversations li input")
    ActionChains(page.browser).send_keys("Stripes", "\ue007").perform()  # its text is selected
    page.until(lambda: "Stripes" in page.conversations(), what="it has its new name")
    page.until(lambda: page.one("#title").text == "Stripes", what="the heading follows")
    page.one("#search").send_keys("strip")
    page.until(lambda: page.conversations() == ["Stripes"], what="it is found")
    page.choose("Stripes", "Delete")
    page.until(lambda: page.conversations() == [], what="it is gone")
    page.click(".toast button:not(.icon-button)")
    page.until(lambda: page.conversations() == ["Stripes"], what="it is back")
    page.choose("Stripes", "Delete")
    page.click(".toast [aria-label=Close]")
    page.open("/")
    page.one("#search").send_keys("strip")
    page.until(lambda: bool(page.all("#conversations .quiet")), what="nothing is found")


def test_a_deletion_holds_when_the_page_is_left(page: ChatPage) -> None:
    page.ask("[[say: leaving]] soon")
    title = page.listed("leaving")
    page.choose(title, "Delete")
    page.open("/")

    def is_gone() -> bool:
        page.browser.refresh()
        page.until(lambda: bool(page.all("#conversations > *")), what="the list is drawn")
        return title not in page.conversations()

    wait_until(is_gone, timeout_secs=15, what="the conversation is deleted")


@pytest.mark.parametrize("name", ["temperature", "max_tokens"])
def test_settings_reach_the_request(page: ChatPage, name: str) -> None:
    page.click("#settings-button")
    page.one(f"[name={name}]").send_keys("1", "\ue004")
    page.click("#settings-close")
    page.browser.logged("performance")
    page.ask("[[count: 9]]")
    sent = [json.loads(entry["message"])["message"] for entry in page.browser.logged("performance")]
    bodies = [
        json.loads(event["params"]["request"]["postData"])
        for event in sent
        if event["method"] == "Network.requestWillBeSent" and event["params"]["request"].get("postData")
    ]
    assert [body[name] for body in bodies if "message" in body] == [1]


def test_a_system_prompt_belongs_to_the_conversation(page: ChatPage) -> None:
    page.click("#settings-button")
    page.one("[name=system_prompt]").send_keys("Answer in rhymes.")
    page.click("#settings-close")
    page.ask("[[say: ok]]")
    page.open(page.browser.current_url.removeprefix(page.url))
    page.until(lambda: page.answers() == ["ok"], what="the conversation is shown")
    assert page.one("[name=system_prompt]").get_property("value") == "Answer in rhymes."
    page.open("/")
    assert page.one("[name=system_prompt]").get_property("value") == ""


def test_archived_with_a_way_back(page: ChatPage) -> None:
    page.ask("[[say: giraffe]] one")
    title = page.listed("giraffe")
    page.choose(title, "Move to the archive")
    page.until(lambda: title not in page.conversations(), what="it is out of sight")
    page.click(".toast button:not(.icon-button)")
    page.until(lambda: title in page.conversations(), what="it is back")
    page.choose(title, "Move to the archive")
    page.until(lambda: title not in page.conversations(), what="it is out of sight again")
    page.click("#archive-switch")
    page.until(lambda: title in page.conversations(), what="the archive has it")
    assert page.answers() == ["giraffe"]
    page.ask("[[say: goes on]]")
    page.until(lambda: title not in page.conversations(), what="a new question took it out")
    page.click("#archive-switch")
    page.until(lambda: title in page.conversations(), what="the list has it again")


def test_the_model_makes_the_title(chromium: str) -> None:
    """The scripted model takes the words of the question for its own: the title is what the question lets it say.
    One whose worker is killed meanwhile is made by the next worker."""
    with running_stack(GEMMA_PARALLEL="2") as stack, running_browser(chromium) as browser:
        page = ChatPage(browser, stack.url).open()
        page.ask("[[say: Bees and the sun]] please")
        page.until(lambda: page.conversations() == ["Bees and the sun"], what="the list shows the title")
        assert page.one("#title").text == "Bees and the sun"
        assert browser.title.startswith("Bees and the sun")
        page.open("/")
        page.ask("[[delay: 150]] [[say: Wasps and paper]]")
        stack.process("gemma-worker").kill()  # while it makes the title
        wait_until(lambda: "Wasps and paper" in page.conversations(), timeout_secs=90, what="another worker makes it")
