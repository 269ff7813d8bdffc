"""The policy for the browser on the operators' pages: scripts and styles are files of this service."""

import re

import pytest
from django.test import Client

from inference.models import HandOver
from tests.admin.builders import SOURCE, add_answer, add_question, add_sources, conversation, operator, page_of
from tests.admin.test_memories import transcript
from tests.chat.services.test_rollups import NOON

pytestmark = pytest.mark.django_db

LISTS = (
    "/admin/chat/conversation/",
    "/admin/chat/message/",
    "/admin/chat/retrieval/",
    "/admin/chat/bulkdeletion/",
    "/admin/chat/apikey/",
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
    "/admin/password_change/",
    "/admin/login/",
    "/admin/",
)


def test_every_page_has_it_and_keeps_to_it() -> None:
    client = operator()
    add_question(chat := conversation())
    answer = add_answer(chat)
    retrieval = add_sources(answer, SOURCE)
    row = HandOver.objects.create(
        started_at=NOON, device_from="cpu", device_to="gpu", waited_ms=1, loaded_ms=2, ended_because="idle"
    )
    spoken = transcript()
    rows = (
        f"/admin/memory/transcript/{spoken.pk}/change/",
        f"/admin/memory/transcript/line/{spoken.segments.get(position=0).pk}/",
        page_of(chat),
        f"/admin/chat/message/{answer.pk}/change/",
        f"/admin/chat/retrieval/{retrieval.pk}/change/",
        f"/admin/inference/generation/{answer.generation_id}/change/",
        f"/admin/inference/handover/{row.pk}/change/",
    )
    for address in (*LISTS, *rows):
        response = client.get(address, follow=address == "/admin/login/")
        assert response.status_code == 200, address
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        page = response.content.decode()
        assert not re.search(r"<[^>]*\sstyle=|<[^>]*\son\w+=|<style|javascript:", page), address
        assert not re.search(r"<script(?![^>]*(src=|type=\"application/json\"))", page), address


@pytest.mark.parametrize("address", ["/admin/login/", "/admin/"])
def test_before_a_login_too(address: str) -> None:
    response = Client().get(address, follow=True)
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]


def test_the_page_after_a_logout_leads_back() -> None:
    page = operator().post("/admin/logout/").content.decode()
    assert "You are signed out." in page
    assert 'href="/admin/"' in page
    assert 'href="/"' in page
    assert "quality time" not in page
