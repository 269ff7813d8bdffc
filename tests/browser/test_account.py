"""The account page: keys, usage, export and deletion of a signed-in user."""

import json

import httpx
import pytest

from tests.api.live import PASSWORD, make_users
from tests.browser.browser import ChatPage
from tests.browser.test_layout import overflow, serious
from tests.browser.test_sign_in import sign_in
from tests.live_stack import LiveStack


@pytest.fixture
def account(page: ChatPage, service: LiveStack, request: pytest.FixtureRequest) -> ChatPage:
    """The account page of a new user, who is named after the test."""
    [user] = make_users(service, request.node.name[:40])
    page.browser.get(f"{page.url}/sign-in/?next=/?view=account")
    sign_in(page, user.name)
    page.until(lambda: bool(page.texts("#usage dd")), what="the usage is shown")
    return page


def test_a_key_is_made_shown_once_and_revoked(account: ChatPage) -> None:
    account.one("#key-name").send_keys("backup")
    account.click("#key-form [type=submit]")
    key = account.one("#new-key-text").get_property("value")
    assert isinstance(key, str)
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{account.url}/api/usage/", headers=headers).status_code == 200
    assert account.texts("#key-list h3")[0].startswith("backup")
    account.open("/?view=account")
    account.until(lambda: bool(account.texts("#key-list h3")), what="the key is listed")
    assert account.all("#new-key-text") == []
    assert key not in account.browser.page_source
    account.click("#key-list button")
    account.until(lambda: "revoked" in account.one("#key-list .quiet:not(code)").text, what="it is revoked")
    assert httpx.get(f"{account.url}/api/usage/", headers=headers).status_code == 401


@pytest.mark.parametrize(("width", "colours"), [(1280, "light"), (360, "dark")])
def test_axe_finds_nothing_serious_and_it_fits(account: ChatPage, width: int, colours: str) -> None:
    account.browser.resize(width, 760, is_phone=width < 500)
    account.browser.set_media(prefers_color_scheme=colours)
    account.one("#key-name").send_keys("a key with a name that is rather long for a phone\ue007")
    account.until(lambda: bool(account.all("#new-key-text")), what="the key is shown")
    account.run("for (const one of document.querySelectorAll('details')) one.open = true")
    assert serious(account.browser) == []
    assert overflow(account) <= 0


def test_usage_grows_and_all_data_is_exported(account: ChatPage) -> None:
    account.open("/")
    account.ask("[[say: kept]] for the export")
    account.open("/?view=account")
    account.until(lambda: account.texts("#usage dd")[4:5] == ["1"], what="one conversation is counted")
    link = account.one("a[href='/api/account/export/']")
    script = "fetch(arguments[0].href).then((answer) => answer.text()).then(arguments[1])"
    document = json.loads(account.browser.execute_async_script(script, link))
    (conversation,) = document["conversations"]
    assert [message["content"] for message in conversation["messages"]] == ["[[say: kept]] for the export", "kept"]
    assert "archived" in conversation


def test_the_account_is_deleted_with_its_password_alone(account: ChatPage) -> None:
    account.click("#data-title ~ details summary")
    account.one("#deletion-password").send_keys("wrong", "\ue007")
    account.until(lambda: bool(account.all(".toast.error")), what="the wrong password is refused")
    account.browser.logged("browser")  # the browser logs the refusal's status
    account.one("#deletion-password").clear()
    account.one("#deletion-password").send_keys(PASSWORD, "\ue007")
    account.until(lambda: "Sign in" in account.one(".links").text, what="nobody is signed in")
    assert account.all("#account-link") == []
