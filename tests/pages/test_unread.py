"""The preference by which the page has its answers made to their end."""

import pytest
from django.test import RequestFactory

from chat.api.chat_views import may_go_on_unread


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("continue-unread", True),
        ("respond-async, Continue-Unread", True),
        ("", False),
        ("continue-unread-not", False),
        ("wait=10", False),
    ],
)
def test_the_preference(header: str, expected: bool) -> None:
    request = RequestFactory().post("/chat/stream", headers={"Prefer": header})
    assert may_go_on_unread(request) == expected
