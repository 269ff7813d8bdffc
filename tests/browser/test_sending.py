"""Sending a question: with an input method, by a double click, with files, very long, and while another answer runs."""

import httpx
import pytest
from selenium.webdriver.common.action_chains import ActionChains

from tests.browser.browser import ChatPage

PLAN = {"plan.txt": "The bridge opens in May."}


def write(page: ChatPage, text: str) -> None:
    page.run(
        "const field = document.querySelector('#question'); field.value = arguments[0];"
        "field.dispatchEvent(new Event('input', { bubbles: true }))",
        text,
    )


def test_a_double_click_sends_and_does_not_stop(page: ChatPage) -> None:
    page.one("#question").send_keys("[[delay: 50]] [[count: 20]]")
    ActionChains(page.browser).double_click(page.one("#send")).perform()
    page.wait_for_end()
    assert page.answer().endswith(" 20")
    assert len(page.answers()) == 1


@pytest.mark.parametrize("event", [{"isComposing": True}, {"keyCode": 229}])
def test_the_enter_of_an_input_method_does_not_send(page: ChatPage, event: dict[str, object]) -> None:
    page.one("#question").click()
    composition = {"text": "にほん", "selectionStart": 3, "selectionEnd": 3}
    page.browser.execute_cdp_cmd("Input.imeSetComposition", composition)
    page.run(
        "document.querySelector('#question').dispatchEvent("
        "new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true, ...arguments[0] }))",
        event,
    )
    assert page.questions() == []
    page.browser.execute_cdp_cmd("Input.insertText", {"text": "日本"})
    page.one("#question").send_keys("\ue007")
    page.until(lambda: page.questions() == ["日本"], what="the next Enter sends")
    page.wait_for_end()


def test_enter_waits_for_the_answer_under_way(page: ChatPage) -> None:
    page.ask("[[delay: 60]] [[count: 40]]", wait=False)
    page.one("#question").send_keys("[[say: the second]]\ue007")
    assert len(page.questions()) == 1
    assert page.one("#question").get_property("value") == "[[say: the second]]"
    page.wait_for_end()
    page.one("#question").send_keys("\ue007")
    page.until(lambda: page.answers()[1:] == ["the second"], what="it is answered")


@pytest.mark.parametrize(("kind", "selector"), [("drop", "#chat-view"), ("paste", "#question")])
def test_a_file_is_dropped_or_pasted(page: ChatPage, kind: str, selector: str) -> None:
    page.give_files(selector, kind, PLAN)
    page.until(lambda: page.texts("#attachments .chip") == ["plan.txt"], what="it is beside the question")
    page.ask("When? [[say: In May [1], it says.]]")
    assert page.texts(".question .files .chip") == ["plan.txt"]
    page.click(".answer .sources .chip")
    assert PLAN["plan.txt"] in page.one("#source-dialog[open]").text


def test_a_file_is_still_there_when_a_question_is_changed_after_a_reload(page: ChatPage) -> None:
    page.give_files("#chat-view", "drop", PLAN)
    page.until(lambda: page.texts("#attachments .chip") == ["plan.txt"], what="it is beside the question")
    page.ask("When? [[say: In May [1], it says.]]")
    page.browser.refresh()
    page.until(lambda: page.texts(".question .files .chip") == ["plan.txt"], what="the file is shown")
    page.run("document.querySelector('.question [aria-label=Edit]').click()")
    area = page.one(".edit textarea")
    area.clear()
    area.send_keys("Which month? [[say: May [1].]]\ue007")
    page.until(lambda: page.answer().startswith("May"), what="it is answered")
    page.wait_for_end()
    assert page.texts(".sources .chip.cited") == ["1\nplan.txt"]


def test_a_question_of_100_kb(page: ChatPage) -> None:
    text = "[[say: read]] " + "a word and another " * 5_400
    write(page, text)
    page.run("document.querySelector('#composer').requestSubmit()")
    # The scripted model has one token for each byte.
    page.until(lambda: "do not fit into its context of 65,536" in page.one(".answer .end.error").text, what="refused")
    page.browser.complaints()  # the browser logs the status 413
    text = text[:50_000].strip()
    page.click(".question [aria-label=Edit]")
    page.run("document.querySelector('.edit textarea').value = arguments[0]", text)
    page.click(".edit .primary")
    page.until(lambda: page.answers() == ["read"], what="half of it is answered")
    page.wait_for_end()
    assert page.answers() == ["read"]
    page.browser.refresh()
    page.until(lambda: page.answers() == ["read"], what="the conversation is shown")
    assert page.run("return document.querySelector('.question .bubble').textContent") == text
    assert page.run("return document.querySelector('.question').clientHeight") < 600


def test_a_question_that_did_not_reach_the_service_is_there_after_a_reload(page: ChatPage) -> None:
    page.ask("[[say: fine]] this one did")
    page.browser.refresh()
    page.until(lambda: page.answers() == ["fine"], what="the conversation is shown")
    assert page.one("#question").get_property("value") == ""
    page.run("window.fetch = () => Promise.reject(new TypeError('lost'))")
    page.ask("this one did not", wait=False)
    page.browser.refresh()
    page.until(lambda: page.one("#question").get_property("value") == "this one did not", what="it is back")
    page.until(lambda: page.answers() == ["fine"], what="the conversation has the other alone")


def test_a_conversation_that_another_browser_answers(page: ChatPage) -> None:
    page.ask("[[say: first]]")
    conversation = page.browser.current_url.partition("c=")[2]
    body = {"message": "[[delay: 100]] [[count: 30]]", "conversation_id": conversation}
    with httpx.stream("POST", f"{page.url}/chat/stream", json=body, timeout=60) as response:
        next(response.iter_lines())
        page.ask("mine", wait=False)
        # The refused question is given back, and the answer of the other browser is followed.
        page.until(lambda: len(page.answers()) == 2 and "3" in page.answer(), what="the other answer is shown")
        assert page.one("#question").get_property("value") == "mine"
        page.wait_for_end()
    assert page.answers()[1].endswith(" 30")
    page.browser.complaints()  # the browser logs the status 409
    page.one("#question").clear()
    page.ask("[[say: third]]")
    assert page.answers()[2:] == ["third"]


def test_another_conversation_that_is_opened_while_one_is_created(page: ChatPage) -> None:
    page.ask("[[say: the old one]]")
    address = page.browser.current_url
    page.open("/")
    page.click("#settings-button")
    page.one("[name=system_prompt]").send_keys("Answer in rhymes.")
    page.click("#settings-close")
    page.run(
        """
        const fetchReally = window.fetch;
        window.fetch = async (path, options) => {
          if (path === "/api/conversations/") await new Promise((resolve) => { window.goOn = resolve; });
          return fetchReally(path, options);
        };
        """
    )
    page.ask("too early", wait=False)
    title = page.listed("the old one")
    page.one(f"#conversations a[title='{title}']").click()
    page.until(lambda: page.answers() == ["the old one"], what="the other conversation is shown")
    page.run("window.goOn()")
    page.ask("[[say: goes on]]")
    assert page.answers() == ["the old one", "goes on"]
    assert page.browser.current_url == address
