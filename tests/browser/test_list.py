"""The list of conversations: days, files, menus, many rows, the way back in the browser, and what other tabs delete."""

import json
from functools import partial
from pathlib import Path

import httpx
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.browser.browser import ChatPage, running_browser
from tests.browser.test_endurance import is_longer
from tests.live_stack import LiveStack, running_stack, wait_until

N_CONVERSATIONS = 2000
MAKE_OLD = """
from datetime import timedelta
from django.utils import timezone
from chat.models import Conversation
for days in (1, 3, 20, 400):
    Conversation.objects.filter(title=f"herd of {days} days").update(updated_at=timezone.now() - timedelta(days=days))
"""
MAKE_MANY = f"""
from chat.models import Conversation
[first] = Conversation.objects.all()
first.title = "herd 0"
first.save()
rows = [Conversation(owner=first.owner, title=f"herd {{number}}") for number in range(1, {N_CONVERSATIONS})]
Conversation.objects.bulk_create(rows)
"""


def has_file(folder: Path, suffix: str) -> bool:
    return list(folder.glob(f"*{suffix}")) != []


def test_conversations_are_grouped_by_day(page: ChatPage, service: LiveStack) -> None:
    for days in (0, 1, 3, 20, 400):
        httpx.post(f"{page.url}/api/conversations/", json={"title": f"herd of {days} days"}).raise_for_status()
    made_old = service.run("shell", "-c", MAKE_OLD)
    assert made_old.returncode == 0, made_old.stderr
    page.open("/")
    page.one("#search").send_keys("herd of")
    page.until(lambda: len(page.conversations()) == 5, what="all are found")
    script = """
        return [...document.querySelectorAll("#conversations section")].map((section) =>
          [section.querySelector("h2").innerText, [...section.querySelectorAll("li a")].map((link) => link.innerText)]);
    """
    *recent, (month, old) = page.run(script)
    assert recent == [
        ["Today", ["herd of 0 days"]],
        ["Yesterday", ["herd of 1 days"]],
        ["Last 7 days", ["herd of 3 days"]],
        ["Last 30 days", ["herd of 20 days"]],
    ]
    assert old == ["herd of 400 days"]
    assert month.split()[1].isdigit()


def test_a_conversation_is_saved_as_a_file(page: ChatPage, tmp_path: Path) -> None:
    folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.browser.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
    page.ask("[[say: **otters**]] to keep")
    title = page.listed("otters")
    for action, suffix in (("Save as Markdown", ".md"), ("Save as JSON", ".json")):
        page.choose(title, action)
        wait_until(partial(has_file, tmp_path, suffix), timeout_secs=20, what=f"there is a {suffix}")
    assert "**otters**" in next(tmp_path.glob("*.md")).read_text(encoding="utf-8")
    document = json.loads(next(tmp_path.glob("*.json")).read_text(encoding="utf-8"))
    assert [message["content"] for message in document["messages"]][-1] == "**otters**"


@pytest.mark.parametrize(("width", "height"), [(1280, 860), (360, 640)])
def test_every_menu_can_be_seen_whole(page: ChatPage, width: int, height: int) -> None:
    for number in range(14):
        httpx.post(f"{page.url}/api/conversations/", json={"title": f"menu {number}"}).raise_for_status()
    page.browser.resize(width, height, is_phone=width < 500)
    page.open("/")
    if width < 500:
        page.click("#menu")
    page.listed("menu 13")
    hidden = """
        const boxOf = (selector) => document.querySelector(selector).getBoundingClientRect();
        const [list, menu] = [boxOf("#conversations"), boxOf(".menu")];
        return Math.max(list.top - menu.top, menu.bottom - list.bottom);
    """
    n_menus = page.run("return document.querySelectorAll('#conversations li').length")
    for number in range(0, n_menus, 3):
        page.run("document.querySelectorAll('#conversations li .icon-button')[arguments[0]].click()", number)
        assert page.run(hidden) < 1, number
        page.one(".menu button").send_keys(Keys.ESCAPE)


def test_the_name_of_a_conversation_is_written_with_an_input_method(page: ChatPage) -> None:
    page.ask("[[say: composed]]")
    title = page.listed("composed")
    page.choose(title, "Rename")
    event = "new KeyboardEvent('keydown', { key: arguments[0], isComposing: true, bubbles: true, cancelable: true })"
    for key in ("Escape", "Enter"):
        page.run(f"document.querySelector('#conversations li input').dispatchEvent({event})", key)
    ActionChains(page.browser).send_keys("日本", Keys.ENTER).perform()  # the field's text is selected
    page.listed("日本")


def test_back_and_forward(page: ChatPage) -> None:
    page.ask("[[say: first]]")
    page.click("#new-chat")
    page.until(lambda: page.answers() == [], what="the page is empty")
    page.ask("[[say: second]]")
    page.click("#memories-link")
    page.until(lambda: page.one("#memories-view").is_displayed(), what="the memories are shown")
    page.browser.back()
    page.until(lambda: page.answers() == ["second"] and page.one("#chat-view").is_displayed(), what="the second")
    page.browser.back()
    page.until(lambda: page.answers() == ["first"], what="the first")
    page.browser.forward()
    page.until(lambda: page.answers() == ["second"], what="the second again")
    page.browser.forward()
    page.until(lambda: page.one("#memories-view").is_displayed(), what="the memories again")


def test_the_open_conversation_is_deleted_in_another_tab(page: ChatPage) -> None:
    page.ask("[[say: doomed]]")
    title, address, first = page.listed("doomed"), page.browser.current_url, page.browser.current_window_handle
    page.browser.switch_to.new_window("tab")
    page.browser.get(address)
    page.until(lambda: page.answers() == ["doomed"], what="the second tab shows it")
    page.choose(title, "Delete")
    page.click(".toast [aria-label=Close]")
    page.until(lambda: title not in page.conversations(), what="it is deleted")
    page.browser.switch_to.window(first)
    page.until(lambda: page.answers() == [] and bool(page.all(".empty h2")), what="the first tab has left it")
    assert page.browser.current_url == f"{page.url}/"
    assert page.one("#title").text == ""
    page.ask("[[say: a new one]]")
    assert page.answers() == ["a new one"]
    page.browser.complaints()  # the browser logs the status 404


def test_a_change_elsewhere_does_not_undo_what_is_being_written(page: ChatPage) -> None:
    page.ask("[[say: first]]")
    address, first = page.browser.current_url, page.browser.current_window_handle
    page.run("document.querySelector('.question [aria-label=Edit]').click()")
    page.one(".edit textarea").send_keys(" and more")
    page.browser.switch_to.new_window("tab")
    page.browser.get(address)
    page.until(lambda: page.answers() == ["first"], what="the second tab shows it")
    page.ask("[[say: second]]")
    page.browser.switch_to.window(first)
    assert page.one(".edit textarea").get_property("value") == "[[say: first]] and more"


def test_2000_conversations(chromium: str) -> None:
    with running_stack(GEMMA_PARALLEL="2", AUTO_TITLES="false") as stack, running_browser(chromium) as browser:
        httpx.post(f"{stack.url}/api/conversations/", json={}).raise_for_status()
        made = stack.run("shell", "-c", MAKE_MANY)
        assert made.returncode == 0, made.stderr
        page = ChatPage(browser, stack.url).open()
        page.listed("herd")
        assert len(page.conversations()) == 50
        while page.all("#conversations .more"):
            n_listed = len(page.conversations())
            page.click("#conversations .more")
            page.until(partial(is_longer, page, n_listed), what="more are listed")
        assert len(set(page.conversations())) == N_CONVERSATIONS
        page.ask("[[say: still quick]]")
        page.listed("still quick")
        page.one("#search").send_keys("herd 1234")
        page.until(lambda: page.conversations() == ["herd 1234"], what="one is found")
