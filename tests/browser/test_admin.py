"""The operators' pages with data: they fit, keep to their policy, and the charts satisfy axe-core."""

import pytest

from tests.api.live import PASSWORD
from tests.browser.browser import ChatPage
from tests.browser.test_layout import LONG_WORD, serious
from tests.live_stack import LiveStack

PREPARE = f"""
from datetime import timedelta
from django.contrib.auth.models import User
from django.utils import timezone
from chat.services.rollups import advancing
if not User.objects.filter(username="op").exists():
    User.objects.create_superuser("op", password={PASSWORD!r})
while advancing.advance(timezone.now() + timedelta(minutes=1)):
    pass
"""
LISTS = (
    "/admin/",
    "/admin/?period=year",
    "/admin/chat/conversation/",
    "/admin/chat/message/",
    "/admin/chat/retrieval/",
    "/admin/chat/bulkdeletion/",
    "/admin/inference/generation/",
    "/admin/inference/generation/running/",
    "/admin/inference/generation/engine/",
    "/admin/inference/handover/",
    "/admin/inference/dailyusage/",
    "/admin/memory/transcript/",
    "/admin/memory/note/",
    "/admin/memory/note/add/",
    "/admin/memory/note/try/",
    "/admin/auth/user/",
    "/admin/auth/group/add/",
)
WITH_ROWS = ("/admin/chat/conversation/", "/admin/chat/message/", "/admin/inference/generation/")


pytestmark = pytest.mark.timeout(400)  # twenty pages on a busy machine


@pytest.fixture
def operator(page: ChatPage, service: LiveStack) -> ChatPage:
    """The admin, after an answer and with its sums."""
    page.ask(f"[[say: an answer about {LONG_WORD}]] {LONG_WORD}")
    prepared = service.run("shell", "-c", PREPARE)
    assert prepared.returncode == 0, prepared.stderr
    page.browser.get(page.url + "/admin/login/")
    page.one("#id_username").send_keys("op")
    page.one("#id_password").send_keys(PASSWORD, "\ue007")
    page.until(lambda: bool(page.all("#user-tools")), what="the operator is signed in")
    return page


def link_of_first_row(page: ChatPage, address: str) -> str:
    page.browser.get(page.url + address)
    return str(page.all("#result_list tbody th a")[0].get_attribute("href")).removeprefix(page.url)


@pytest.mark.parametrize(("width", "colours"), [(390, "dark"), (1280, "light")])
def test_every_page_fits_and_the_charts_can_be_read(operator: ChatPage, width: int, colours: str) -> None:
    rows = [link_of_first_row(operator, address) for address in WITH_ROWS]
    operator.browser.resize(width, 900, is_phone=width < 500)
    operator.browser.set_media(prefers_color_scheme=colours)
    findings: dict[str, object] = {}
    for address in (*LISTS, *rows):
        operator.browser.get(operator.url + address)
        too_wide = operator.browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        if too_wide > 0:
            findings[address] = f"{too_wide} px too wide"
        # The other pages are Django's markup.
        elif address in LISTS[:2] and (problems := serious(operator.browser)):
            findings[address] = problems
    assert findings == {}


def test_the_charts_show_the_answer(operator: ChatPage) -> None:
    operator.browser.get(operator.url + "/admin/")
    assert "Conversations begun" in operator.one(".tiles").text
    assert operator.all(".chart-drawing .line, .chart-drawing .bar") != []
    operator.click(".overview-periods a:last-child")
    operator.until(lambda: "period=year" in operator.browser.current_url, what="the year is shown")
    assert operator.one("[aria-current]").text == "1 year"


def test_a_conversation_shows_where_the_time_went(operator: ChatPage) -> None:
    operator.browser.get(operator.url + link_of_first_row(operator, WITH_ROWS[0]))
    operator.click(".waterfall summary")
    assert "answer" in operator.one(".waterfall table").text
