"""A service with the scripted model, and a Chromium that must not complain: `make test-browser` sets BROWSER_TESTS."""

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.live_stack import LiveStack, running_stack

if TYPE_CHECKING:
    from tests.browser.browser import Browser, ChatPage

# Without the browser nothing of this folder is imported: `make test` spends no time on it.
collect_ignore_glob = [] if os.environ.get("BROWSER_TESTS") else ["test_*.py"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium() -> str:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None or shutil.which("chromedriver") is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    return path


@pytest.fixture(scope="session")
def service() -> Iterator[LiveStack]:
    # Titles by the model would change while tests look for the words of their questions.
    with running_stack(GEMMA_PARALLEL="2", AUTO_TITLES="false") as stack:
        yield stack


@pytest.fixture(scope="session")
def shared_browser(chromium: str) -> "Iterator[Browser]":
    from tests.browser.browser import running_browser  # noqa: PLC0415  selenium, which only these tests need

    with running_browser(chromium) as browser:
        yield browser


@pytest.fixture
def page(shared_browser: "Browser", service: LiveStack) -> "Iterator[ChatPage]":
    """The chat page as a new visitor sees it. No policy is violated on it, and no request leaves the host."""
    from tests.browser.browser import ChatPage  # noqa: PLC0415  as above

    browser = shared_browser
    browser.execute_cdp_cmd("Network.clearBrowserCookies", {})
    browser.get(service.url + "/static/pages/icon.svg")
    browser.execute_script("localStorage.clear()")
    browser.resize(1280, 860)
    browser.set_media()
    browser.complaints()
    browser.requested_hosts()
    yield ChatPage(browser, service.url).open()
    while len(browser.window_handles) > 1:
        browser.switch_to.window(browser.window_handles[-1])
        browser.close()
    browser.switch_to.window(browser.window_handles[0])
    assert browser.requested_hosts() <= {urlsplit(service.url).netloc}
    # On a busy machine a check of /health may be late, which its status reports.
    assert [line for line in browser.complaints() if "/health -" not in line] == []
