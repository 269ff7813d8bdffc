"""Sign-in and sign-out: another user has other conversations, and the page says who is there."""

from tests.api.live import PASSWORD, make_users
from tests.browser.browser import ChatPage
from tests.live_stack import LiveStack


def sign_in(page: ChatPage, name: str, password: str = PASSWORD) -> None:
    page.one("#id_username").send_keys(name)
    page.one("#id_password").send_keys(password, "\ue007")


def test_a_user_signs_in_chats_and_signs_out(page: ChatPage, service: LiveStack) -> None:
    [ann] = make_users(service, "ann")
    page.ask("[[say: local]] of nobody")
    page.click(".links a[href^='/sign-in']")
    sign_in(page, ann.name, "wrong")
    page.until(lambda: bool(page.all("#problem")), what="the wrong password is refused")
    assert page.one("#problem").text == "No active account has this name and password."
    sign_in(page, "", PASSWORD)
    page.until(lambda: f"Sign out {ann.name}" in page.one(".links").text, what="ann is signed in")
    page.until(lambda: bool(page.all("#conversations .quiet")), what="she has no conversations yet")
    page.ask("[[say: hers]] alone")
    page.until(lambda: len(page.conversations()) == 1, what="it is listed")
    page.click(".links form button")
    page.until(lambda: "Sign in" in page.one(".links").text, what="she is signed out")
    page.until(lambda: any("nobody" in title for title in page.conversations()), what="the others are listed")
    assert not any("alone" in title for title in page.conversations())


def test_a_conversation_of_another_user_is_not_there(page: ChatPage, service: LiveStack) -> None:
    [eve] = make_users(service, "eve")
    page.ask("[[say: private]]")
    address = page.browser.current_url.removeprefix(page.url)
    page.browser.get(f"{page.url}/sign-in/?next={address}")
    sign_in(page, eve.name)
    page.until(lambda: "There is no such conversation" in page.toast(), what="the page says so")
    assert page.answers() == []
    page.browser.get("about:blank")
    page.browser.complaints()  # the browser logs the status 404


def test_a_session_that_ends_loses_nothing_that_was_written(page: ChatPage, service: LiveStack) -> None:
    [mia] = make_users(service, "mia")
    page.click(".links a[href^='/sign-in']")
    sign_in(page, mia.name)
    page.until(lambda: f"Sign out {mia.name}" in page.one(".links").text, what="she is signed in")
    page.ask("[[say: first]] question")
    page.browser.delete_cookie("sessionid")
    page.one("#question").send_keys("written after the end\ue007")
    page.until(lambda: page.one("#signed-out").is_displayed(), what="the page says so")
    assert page.one("#question").get_attribute("value") == "written after the end"
    page.click("#sign-in-again")
    page.one("#id_username")
    page.browser.complaints()  # the browser logs the status 401 of each request
    sign_in(page, mia.name)
    page.until(lambda: f"Sign out {mia.name}" in page.one(".links").text, what="she is back")
    assert page.one("#question").get_attribute("value") == "written after the end"
    page.until(lambda: len(page.answers()) == 1, what="the conversation is open again")
    page.click("#send")
    page.until(lambda: len(page.answers()) == 2, what="the question is answered")
    page.click(".links form button")
    page.until(lambda: "Sign in" in page.one(".links").text, what="she is signed out")
    assert page.one("#question").get_attribute("value") == ""
