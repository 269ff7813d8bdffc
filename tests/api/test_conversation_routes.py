"""/api/conversations/: create, list in pages, search, change, delete, messages, export."""

import uuid
from typing import Any

import pytest

from chat.models import Conversation, Message, Role, Summary
from inference.models import FinishReason, Generation, Status
from tests.api.calling import Api

pytestmark = [pytest.mark.django_db, pytest.mark.databases]
URL = "/api/conversations/"


@pytest.fixture
def api() -> Api:
    return Api()


def a_conversation(title: str = "About bees", *, n_turns: int = 1, owner: str = "local") -> Conversation:
    conversation = Conversation.objects.create(owner=owner, title=title)
    for turn in range(n_turns):
        place: dict[str, Any] = {"conversation": conversation}
        Message.objects.create(**place, position=2 * turn, role=Role.USER, content=f"question {turn}")
        generation = Generation.objects.create(
            owner=owner,
            status=Status.COMPLETE,
            text=f"answer {turn}",
            finish_reason=FinishReason.STOP,
            n_prompt_tokens=5,
            n_completion_tokens=2,
            devices=[{"device": "cpu", "tokens": 2}],
        )
        Message.objects.create(**place, position=2 * turn + 1, role=Role.ASSISTANT, generation=generation)
    return conversation


def test_create_read_change_delete(api: Api) -> None:
    made = api.post(URL, {"title": "Bees", "system_prompt": "Be brief."})
    assert made.status == 201
    versions = {"family", "forked_from", "forked_at"}
    texts = {"id", "title", "title_source", "summary", "system_prompt", "created_at", "updated_at"}
    assert set(made.body) == texts | versions | {"strategy", "keep", "archived", "recall"}
    path = f"{URL}{made.body['id']}/"
    assert api.get(path).body == made.body
    changed = api.call("PATCH", path, {"title": "Wasps"})
    assert (changed.status, changed.body["title"], changed.body["system_prompt"]) == (200, "Wasps", "Be brief.")
    assert api.call("PATCH", path, {"system_prompt": ""}).body["system_prompt"] == ""
    assert api.call("DELETE", path).status == 204
    assert api.get(path).outcome == (404, "not_found")
    assert api.call("DELETE", path).outcome == (404, "not_found")


def test_the_strategy_for_what_does_not_fit_is_kept(api: Api) -> None:
    made = api.post(URL, {"strategy": "error"})
    assert made.body["strategy"] == "error"
    path = f"{URL}{made.body['id']}/"
    assert api.call("PATCH", path, {"strategy": "truncate"}).body["strategy"] == "truncate"
    assert api.call("PATCH", path, {"title": "x"}).body["strategy"] == "truncate"


def test_the_search_of_earlier_messages_can_be_switched_off(api: Api) -> None:
    made = api.post(URL, {})
    assert made.body["recall"] is True
    path = f"{URL}{made.body['id']}/"
    assert api.call("PATCH", path, {"recall": False}).body["recall"] is False
    assert api.call("PATCH", path, {"title": "x"}).body["recall"] is False
    assert api.post(URL, {"recall": False}).body["recall"] is False


def test_all_versions_of_the_summary_can_be_read(api: Api) -> None:
    conversation = a_conversation(n_turns=3)
    assert api.get(f"{URL}{conversation.pk}/summaries/").body["results"] == []
    for version, state in enumerate(("made", "failed", "made"), start=1):
        Summary.objects.create(
            conversation=conversation, version=version, state=state, covers_until=version, text=f"v{version}"
        )
    Conversation.objects.update(summary="v3")
    assert api.get(f"{URL}{conversation.pk}/").body["summary"] == "v3"
    listed = api.get(f"{URL}{conversation.pk}/summaries/?limit=2").body
    assert listed["count"] == 3
    assert [(row["version"], row["state"], row["covers_until"], row["text"]) for row in listed["results"]] == [
        (3, "made", 3, "v3"),
        (2, "failed", 2, "v2"),
    ]
    others = a_conversation(owner="user:9")
    assert api.get(f"{URL}{others.pk}/summaries/").outcome == (404, "not_found")


def test_nothing_has_to_be_given(api: Api) -> None:
    for raw in (b"", b"{}"):
        made = api.call("POST", URL, raw)
        assert (made.status, made.body["title"]) == (201, "")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"title": 7}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"title": "a\0b"}, "title"),
        ({"title": ["x"]}, "title"),
        ({"system_prompt": {"a": 1}}, "system_prompt"),
        ({"strategy": "forget"}, "strategy"),
        ({"recall": "yes"}, "recall"),
        ({"system_prompt": "x" * 100_001}, "system_prompt"),
    ],
)
def test_what_cannot_be_set(api: Api, body: dict[str, object], field: str) -> None:
    conversation = a_conversation()
    for method, path in (("POST", URL), ("PATCH", f"{URL}{conversation.pk}/")):
        answer = api.call(method, path, body)
        assert answer.outcome == (400, "invalid_request")
        assert answer.body["error"]["field"] == field
    assert Conversation.objects.count() == 1


@pytest.mark.parametrize("raw", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_bodies_that_are_no_objects(api: Api, raw: bytes) -> None:
    assert api.call("POST", URL, raw).status == 400
    assert not Conversation.objects.exists()


def test_the_closing_slash_may_be_left_out(api: Api) -> None:
    made = api.post("/api/conversations", {"title": "x"})
    assert made.status == 201
    assert api.get(f"/api/conversations/{made.body['id']}").status == 200
    assert api.get(f"/api/conversations/{made.body['id']}/messages").status == 200


def test_the_one_used_last_comes_first(api: Api) -> None:
    first, second = a_conversation("first"), a_conversation("second")
    assert [row["id"] for row in api.get(URL).body["results"]] == [str(second.pk), str(first.pk)]
    api.call("PATCH", f"{URL}{first.pk}/", {"title": "first again"})
    assert [row["id"] for row in api.get(URL).body["results"]] == [str(first.pk), str(second.pk)]


class TestPages:
    def test_from_the_first_to_the_last_and_back(self, api: Api) -> None:
        for number in range(5):
            a_conversation(f"{number}", n_turns=0)
        seen, page = [], api.get(f"{URL}?limit=2")
        assert (page.body["count"], page.body["previous"]) == (5, None)
        while True:
            seen += [row["title"] for row in page.body["results"]]
            if page.body["next"] is None:
                break
            page = api.get(page.body["next"].removeprefix("http://testserver"))
        assert seen == ["4", "3", "2", "1", "0"]
        assert "offset=2" in page.body["previous"]

    def test_a_search_goes_on_over_its_pages(self, api: Api) -> None:
        for number in range(3):
            a_conversation(f"bee & {number}", n_turns=0)
        a_conversation("wasp", n_turns=0)
        page = api.get(f"{URL}?limit=2&search=bee+%26").body
        assert (page["count"], len(page["results"])) == (3, 2)
        rest = api.get(page["next"].removeprefix("http://testserver")).body
        assert [row["title"] for row in rest["results"]] == ["bee & 0"]

    @pytest.mark.parametrize(
        "query",
        [
            "limit=-2",
            "limit=x",
            "limit=1.5",
            "limit=1e2",
            "limit=%20",
            "offset=-1",
            "offset=x",
        ],
    )
    def test_numbers_that_are_none(self, api: Api, query: str) -> None:
        answer = api.get(f"{URL}?{query}")
        assert answer.outcome == (400, "invalid_request")
        assert answer.body["error"]["field"] == query.partition("=")[0]

    def test_behind_the_end(self, api: Api) -> None:
        a_conversation()
        page = api.get(f"{URL}?offset=1000").body
        assert (page["count"], page["results"], page["next"]) == (1, [], None)


class TestSearch:
    @pytest.mark.parametrize("text", ["bees", "BEES", "question 1", "answer 0", "swer"])
    def test_titles_questions_and_answers(self, api: Api, text: str) -> None:
        conversation = a_conversation(n_turns=2)
        a_conversation("something else", n_turns=0)
        found = api.get(f"{URL}?search={text}").body
        assert [row["id"] for row in found["results"]] == [str(conversation.pk)]
        assert found["count"] == 1

    @pytest.mark.parametrize("text", ["%25", "_", "'", "nothing like it"])
    def test_signs_of_the_databases_language_mean_themselves(self, api: Api, text: str) -> None:
        a_conversation()
        assert api.get(f"{URL}?search={text}").body["count"] == 0

    @pytest.mark.parametrize("text", ["%00", "x" * 201])
    def test_texts_that_are_refused(self, api: Api, text: str) -> None:
        assert api.get(f"{URL}?search={text}").outcome == (400, "invalid_request")


class TestMessages:
    def test_oldest_first_with_what_is_known_of_each(self, api: Api) -> None:
        conversation = a_conversation(n_turns=2)
        rows = api.get(f"{URL}{conversation.pk}/messages/").body["results"]
        assert [(row["role"], row["content"]) for row in rows] == [
            ("user", "question 0"),
            ("assistant", "answer 0"),
            ("user", "question 1"),
            ("assistant", "answer 1"),
        ]
        fields = {"role", "content", "status", "finish_reason", "usage", "timings", "device", "sources"}
        assert all(fields <= row.keys() for row in rows)
        assert (rows[1]["status"], rows[1]["finish_reason"], rows[1]["device"]) == ("complete", "stop", "cpu")
        assert rows[1]["usage"]["total_tokens"] == 7

    def test_in_pages(self, api: Api) -> None:
        conversation = a_conversation(n_turns=3)
        page = api.get(f"{URL}{conversation.pk}/messages/?limit=2&offset=2").body
        assert (page["count"], [row["content"] for row in page["results"]]) == (6, ["question 1", "answer 1"])


class TestExport:
    def test_as_json(self, api: Api) -> None:
        conversation = a_conversation(n_turns=1)
        answer = api.get(f"{URL}{conversation.pk}/export/")
        assert answer.status == 200
        assert answer.body["title"] == "About bees"
        assert [message["content"] for message in answer.body["messages"]] == ["question 0", "answer 0"]
        assert f"{conversation.pk}.json" in answer.headers["Content-Disposition"]
        assert api.get(f"{URL}{conversation.pk}/export/?format=json").body == answer.body

    def test_as_markdown(self, api: Api) -> None:
        conversation = a_conversation("Bees \N{HONEYBEE}", n_turns=1)
        response = api.client.get(f"{URL}{conversation.pk}/export/?format=markdown")
        assert response.status_code == 200
        assert response["Content-Type"] == "text/markdown; charset=utf-8"
        assert ".md" in response["Content-Disposition"]
        text = response.content.decode()
        assert "Bees \N{HONEYBEE}" in text
        assert text.index("question 0") < text.index("answer 0")

    def test_whatever_a_browser_accepts(self, api: Api) -> None:
        conversation = a_conversation()
        for path in (f"{URL}{conversation.pk}/export/", URL):
            assert api.get(path, {"Accept": "text/html,application/xhtml+xml"}).status == 200

    def test_no_other_format(self, api: Api) -> None:
        answer = api.get(f"{URL}{a_conversation().pk}/export/?format=pdf")
        assert answer.outcome == (400, "invalid_request")
        assert answer.body["error"]["field"] == "format"


@pytest.mark.parametrize("name", ["x", "1", "null", "..", "6f1f2f44-3c5c-4d8e-9a53", str(uuid.UUID(int=0)), "%00"])
def test_names_of_nothing(api: Api, name: str) -> None:
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "messages/"), ("GET", "export/")):
        assert api.call(method, f"{URL}{name}/{path}", {} if method == "PATCH" else None).outcome == (404, "not_found")


def test_archived_conversations_are_listed_where_they_are_asked_for(api: Api) -> None:
    kept, away = a_conversation("About bees"), a_conversation("About wasps")
    before = api.get(f"{URL}{away.pk}/").body
    changed = api.call("PATCH", f"{URL}{away.pk}/", {"archived": True})
    assert changed.body == {**before, "archived": True}, "its place in lists is the same"
    lists = {
        name: [row["id"] for row in api.get(f"{URL}?archived={name}").body["results"]] for name in ("true", "false")
    }
    assert lists == {"true": [str(away.pk)], "false": [str(kept.pk)]}
    assert api.get(URL).body["count"] == api.get(f"{URL}?archived=all").body["count"] == 2
    assert api.get(f"{URL}?archived=true&search=bees").body["count"] == 0
    assert api.get(f"{URL}?archived=yes").outcome == (400, "invalid_request")
    assert api.get(f"{URL}{away.pk}/export/").body["archived"] is True
    assert api.call("PATCH", f"{URL}{away.pk}/", {"archived": False}).body == before


@pytest.mark.parametrize(("title", "source"), [("Bees", "user"), ("", "words")])
def test_a_title_that_was_set_is_a_persons(api: Api, title: str, source: str) -> None:
    made = api.post(URL, {"title": title}).body
    assert made["title_source"] == source
    assert api.call("PATCH", f"{URL}{made['id']}/", {"title": "Wasps"}).body["title_source"] == "user"
    assert api.call("PATCH", f"{URL}{made['id']}/", {"title": ""}).body["title_source"] == "words"
