"""Texts that no database stores, in every field of the admin and the pages that a browser sends: never a 5xx."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin import ModelAdmin, site
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.urls import reverse

from chat.models import Conversation
from inference.models import Generation
from tests.faults.conftest import IS_WHOLE_RUN

# One of so many is sent in a quick run, which `make test` does on PostgreSQL alone; all in `make faults`.
SHARE = 29
pytestmark = [
    pytest.mark.django_db,
    pytest.mark.databases,
    pytest.mark.skipif(connection.vendor == "sqlite" and not IS_WHOLE_RUN, reason="SQLite stores more than others"),
]

IN_ADDRESSES = ("%00", "a%00b", "%ED%A0%80")
IN_FORMS = ("\0", "a\0b", "\ufffd")
# The admin writes bytes of ids as _XX.
IDS = ("_00", "a_00b", "%ED%A0%80", "_FF", "9" * 40, "-1")
LOOKUPS = ("", "__exact", "__icontains", "__in", "__isnull", "__gte", "__year")
OPTIONS = (
    "q",
    "o",
    "p",
    "all",
    "e",
    "_facets",
    "_popup",
    "_to_field",
    "_changelist_filters",
    "owner",
    "status",
    "device",
)
ADMINS = sorted(site._registry.items(), key=lambda pair: pair[0]._meta.label)
EACH = pytest.mark.parametrize("model_admin", [entry for _, entry in ADMINS], ids=[m._meta.label for m, _ in ADMINS])


@pytest.fixture
def browser() -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create(username="root", is_staff=True, is_superuser=True))
    Conversation.objects.create(owner="local", title="x")
    Generation.objects.create(owner="local", params={})
    return client


def address(model_admin: "ModelAdmin[Any]", page: str, *ids: str) -> str:
    meta = model_admin.model._meta
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_{page}", args=ids)


def queries(model_admin: "ModelAdmin[Any]") -> Iterator[str]:
    names = [*OPTIONS]
    for column in model_admin.model._meta.fields:
        names += [f"{column.name}{lookup}" for lookup in LOOKUPS]
    for entry in model_admin.list_filter:
        if isinstance(entry, str):
            names += [f"{entry}{lookup}" for lookup in LOOKUPS]
        elif isinstance(entry, type) and (name := getattr(entry, "parameter_name", None)):
            names.append(name)
    for text in IN_ADDRESSES:
        yield f"{text}=1"
        yield from (f"{name}={text}" for name in dict.fromkeys(names))


def assert_no_fault(browser: Client, method: str, path: str, form: dict[str, Any] | None = None) -> None:
    response = browser.get(path) if method == "GET" else browser.post(path, form)
    assert response.status_code < 500, (method, path, form, response.content[:300])


@EACH
def test_lists(model_admin: "ModelAdmin[Any]", browser: Client) -> None:
    path = address(model_admin, "changelist")
    for query in [*queries(model_admin)][:: 1 if IS_WHOLE_RUN else SHARE]:
        assert_no_fault(browser, "GET", f"{path}?{query}")


@EACH
def test_actions(model_admin: "ModelAdmin[Any]", browser: Client) -> None:
    path = address(model_admin, "changelist")
    names = [*map(str, model_admin.actions or ()), "delete_selected"]
    for text in IN_FORMS:
        for name in names:
            form = {"action": name, "_selected_action": [text], "index": "0", "select_across": "0"}
            assert_no_fault(browser, "POST", path, form)
            assert_no_fault(browser, "POST", path, form | {"post": "yes"})
        for field in ("action", "index", "select_across"):
            assert_no_fault(browser, "POST", path, {"action": names[0], "_selected_action": ["1"], field: text})


@EACH
@pytest.mark.parametrize("page", ["change", "delete", "history"])
def test_objects(page: str, model_admin: "ModelAdmin[Any]", browser: Client) -> None:
    for text in IDS:
        assert_no_fault(browser, "GET", address(model_admin, page, "X").replace("/X/", f"/{text}/"))


@EACH
def test_forms(model_admin: "ModelAdmin[Any]", browser: Client) -> None:
    path = address(model_admin, "add")
    names = [column.name for column in (*model_admin.model._meta.fields, *model_admin.model._meta.many_to_many)]
    names += ["password1", "password2", "usable_password", "_save", "_popup", "next"]
    for text in IN_FORMS:
        for name in names if IS_WHOLE_RUN else names[::SHARE]:
            assert_no_fault(browser, "POST", path, {"username": "x", "name": "x", name: text})


@pytest.mark.parametrize(
    "path", ["/admin/login/", "/sign-in", "/sign-out", "/admin/password_change/", "/admin/jsi18n/"]
)
@pytest.mark.parametrize(
    "name", ["username", "password", "next", "old_password", "new_password1", "csrfmiddlewaretoken"]
)
def test_pages(path: str, name: str, browser: Client) -> None:
    for client in (browser, Client(raise_request_exception=False)):
        for text in IN_FORMS if IS_WHOLE_RUN else IN_FORMS[:1]:
            assert_no_fault(client, "POST", path, {"username": "x", "password": "y", name: text})
        for text in IN_ADDRESSES:
            assert_no_fault(client, "GET", f"{path}?{name}={text}")
    for text in IN_ADDRESSES:
        assert_no_fault(
            browser, "GET", f"/admin/autocomplete/?term={text}&app_label={text}&model_name=user&field_name=user"
        )
        assert_no_fault(browser, "GET", f"/admin/r/{text}/1/")
