"""The operators' pages of generations, and their one action."""

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from inference.models import Generation, Status
from tests.inference.making import queued

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "admin:inference_generation_changelist"


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("op"))
    return client


def test_the_list_and_a_generation_are_shown_without_editing(operator: Client) -> None:
    generation = queued("user:7")
    Generation.objects.update(text="<script>alert(1)</script>")
    page = operator.get(reverse(LIST)).content.decode()
    assert "deleted user 7" in page
    page = operator.get(reverse("admin:inference_generation_change", args=[generation.pk])).content.decode()
    assert "&lt;script&gt;" in page
    assert "<script>alert" not in page
    assert 'name="status"' not in page


def test_nothing_can_be_added_changed_or_deleted(operator: Client) -> None:
    generation = queued()
    assert operator.get(reverse("admin:inference_generation_add")).status_code == 403
    for view in ("change", "delete"):
        url = reverse(f"admin:inference_generation_{view}", args=[generation.pk])
        assert operator.post(url, {"status": "complete", "post": "yes"}).status_code == 403
    generation.refresh_from_db()
    assert generation.status == Status.QUEUED


def test_the_action_cancels_unfinished_generations(operator: Client) -> None:
    waiting, ended = queued(), queued()
    Generation.objects.filter(pk=ended.pk).update(status=Status.COMPLETE)
    answer = operator.post(
        reverse(LIST), {"action": "cancel", "_selected_action": [str(waiting.pk), str(ended.pk)]}, follow=True
    )
    assert "1 cancelled, 1 had ended already" in answer.content.decode()
    waiting.refresh_from_db()
    assert waiting.status == Status.INTERRUPTED


@pytest.mark.parametrize(("may_change", "status"), [(False, Status.QUEUED), (True, Status.INTERRUPTED)])
def test_a_viewer_without_permission_cancels_nothing(client: Client, may_change: bool, status: Status) -> None:
    waiting = queued()
    user = User.objects.create_user("looks", is_staff=True)
    codes = ["view_generation", "change_generation"] if may_change else ["view_generation"]
    user.user_permissions.set(Permission.objects.filter(codename__in=codes))
    client.force_login(user)
    assert client.get(reverse(LIST)).status_code == 200
    client.post(reverse(LIST), {"action": "cancel", "_selected_action": [str(waiting.pk)]})
    waiting.refresh_from_db()
    assert waiting.status == status


def test_strangers_see_nothing(client: Client) -> None:
    assert client.get(reverse(LIST)).status_code == 302
