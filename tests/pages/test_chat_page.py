"""The page at /: for browsers alone, with a strict policy; and the files and texts that it uses."""

import re
from pathlib import Path

import pytest
from django.test import Client
from pytest_django import Settings

from chat.pages.texts import SCRIPT_TEXTS
from inference.enums import StreamState
from tests.api.people import make_user

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}
PROJECT = Path(__file__).resolve().parents[2]
PAGES = PROJECT / "chat" / "pages"
SCRIPTS = sorted((PAGES / "static" / "pages").glob("*.js"))
VENDORED = sorted((PAGES / "static" / "pages" / "vendor").glob("*.js"))
MOST_BYTES = 600_000
# Namespaces of SVG, and the address of a licence.
NAMED_HOSTS = {"www.w3.org"}
# The view looks the user up in a thread of its own.
IN_THREADS = pytest.mark.django_db(transaction=True)
pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "accept",
    [
        BROWSER["Accept"],
        "text/html",
        "text/html;q=0.9, application/json;q=0.5",
        "text/*",
    ],
)
def test_a_browser_gets_the_page(accept: str) -> None:
    response = Client().get("/", headers={"Accept": accept})
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/html")
    assert 'id="composer"' in response.content.decode()
    assert "Accept" in response["Vary"]


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/json",
        "application/json, text/html;q=0.5",
        "application/json, */*",
        "image/png",
        "x",
        ";;",
    ],
)
def test_a_program_gets_json(accept: str) -> None:
    response = Client().get("/", headers={"Accept": accept} if accept else {})
    assert response.status_code == 200
    assert response.json()["service"] == "Gemma Service"


def test_the_policy_allows_files_of_this_service_alone() -> None:
    policy = Client().get("/", headers=BROWSER)["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_page_has_no_script_or_style_in_it() -> None:
    page = Client().get("/", headers=BROWSER).content.decode()
    scripts = re.findall(r"<script([^>]*)>", page)
    assert all("src=" in attributes or 'type="application/json"' in attributes for attributes in scripts)
    assert "<style" not in page
    assert not re.search(r"\s(style|on\w+)=", page)


@IN_THREADS
def test_a_name_in_the_page_is_text() -> None:
    client = Client()
    client.force_login(make_user("</script><b>x"))
    page = client.get("/", headers=BROWSER).content.decode()
    assert "</script><b>" not in page
    assert "&lt;/script&gt;&lt;b&gt;x" in page


@IN_THREADS
@pytest.mark.parametrize("is_staff", [True, False])
def test_staff_alone_see_the_way_to_the_administration(is_staff: bool) -> None:
    user = make_user()
    user.is_staff = is_staff
    user.save()
    client = Client()
    client.force_login(user)
    assert ('href="/admin/"' in client.get("/", headers=BROWSER).content.decode()) == is_staff


@IN_THREADS
def test_from_another_network_one_signs_in_first() -> None:
    response = Client().get("/?c=1", headers=BROWSER, REMOTE_ADDR="203.0.113.7")
    assert (response.status_code, response["Location"]) == (302, "/sign-in?next=%2F%3Fc%3D1")


@IN_THREADS
def test_a_session_is_no_credential_with_jwt_only(settings: Settings) -> None:
    settings.JWT_ONLY = True
    client = Client()
    client.force_login(make_user())
    assert client.get("/", headers=BROWSER)["Location"] == "/sign-in?next=%2F"
    page = client.get("/sign-in/").content.decode()
    assert "JWT_ONLY" in page
    assert 'name="password"' not in page


@pytest.mark.parametrize(
    ("languages", "expected"),
    [("de-AT,de;q=0.9", "Neuer Chat"), ("fr, de;q=0.1", "New chat"), ("", "New chat"), ("xx;q=y", "New chat")],
)
def test_the_language_is_the_browsers(languages: str, expected: str) -> None:
    page = Client().get("/", headers={**BROWSER, "Accept-Language": languages}).content.decode()
    assert expected in page


def test_the_cookie_chooses_the_language() -> None:
    client = Client()
    client.cookies["django_language"] = "de"
    page = client.get("/", headers=BROWSER).content.decode()
    assert '<html lang="de">' in page
    assert "Noch einmal antworten" in page


def test_the_scripts_use_texts_that_exist() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
    used = set(re.findall(r'(?<![\w.])t\(\s*"(\w+)"', source))
    assert used - set(SCRIPT_TEXTS) == set()
    assert {key for key in SCRIPT_TEXTS if f'"{key}"' not in source} == set()


def test_each_state_of_a_stream_has_its_sentence() -> None:
    source = (PAGES / "static" / "pages" / "status_text.js").read_text(encoding="utf-8")
    assert set(re.findall(r'case "(\w+)":', source)) == {state.value for state in StreamState}


def test_all_files_together_are_small() -> None:
    files = [path for path in (PAGES / "static").rglob("*") if path.suffix in (".js", ".css", ".svg")]
    assert sum(path.stat().st_size for path in files) + len(Client().get("/", headers=BROWSER).content) < MOST_BYTES


def test_no_file_names_another_host() -> None:
    own = [*SCRIPTS, *(PAGES / "static" / "pages").glob("*.css"), *(PAGES / "templates").rglob("*.html")]
    hosts = {host for path in own for host in re.findall(r"https?://([\w.-]+)", path.read_text(encoding="utf-8"))}
    assert hosts <= NAMED_HOSTS


@pytest.mark.parametrize("path", VENDORED, ids=lambda path: path.stem)
def test_files_of_others_have_their_licence(path: Path) -> None:
    assert path.with_suffix(".LICENSE.txt").stat().st_size > 500
    listed = (PROJECT / "THIRD_PARTY.md").read_text(encoding="utf-8")
    assert f"`{path.relative_to(PROJECT)}`" in listed
