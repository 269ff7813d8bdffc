"""GET /v1/models, and the form of errors under /v1/."""

import jwt
import pytest
from pytest_django import Settings

from chat.services import served_models
from inference.errors import ModelUnavailable
from tests.api.calling import Api

pytestmark = pytest.mark.django_db(transaction=True)

JWT = jwt.encode({"sub": "1"}, "another key of another service, long enough", algorithm="HS256")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/", "/models"])
def test_the_list_holds_the_chat_model(path: str) -> None:
    answer = Api().get(path)
    assert (answer.status, answer.body["object"]) == (200, "list")
    assert [model["id"] for model in answer.body["data"]] == ["fake-it"]


@pytest.mark.parametrize("name", ["fake-it", "Fake-It", "all-MiniLM-L6-v2"])
def test_one_model(name: str) -> None:
    answer = Api().get(f"/v1/models/{name}")
    assert (answer.status, answer.body["id"].casefold()) == (200, name.casefold())


@pytest.mark.parametrize("name", ["gpt-4o", "a/b", "*", "%25", "x" * 5000])
def test_an_unknown_model(name: str) -> None:
    answer = Api().get(f"/v1/models/{name}")
    assert answer.status == 404
    error = answer.body["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "model", "model_not_found")
    assert len(error["message"]) < 200


@pytest.mark.parametrize(("aliases", "status"), [(["gpt-4o"], 200), (["*"], 200), (["gpt-4"], 404), ([], 404)])
def test_aliases(aliases: list[str], status: int, settings: Settings) -> None:
    settings.MODEL_ALIASES = aliases
    answer = Api().get("/v1/models/GPT-4o")
    assert answer.status == status
    assert status == 404 or answer.body["id"] == "fake-it"


@pytest.mark.parametrize("key", ["none", "sk-1234", "", "a.b", "ключ", "not.a.jwt.at.all"])
def test_a_foreign_key_is_ignored_on_this_machine(key: str) -> None:
    assert Api().get("/v1/models", {"Authorization": f"Bearer {key}"}).status == 200


@pytest.mark.parametrize(
    ("key", "address"),
    [
        (f"Bearer {JWT}", "127.0.0.1"),
        ("Bearer gemma-1234", "127.0.0.1"),
        ("Basic eDp5", "127.0.0.1"),
        ("Bearer sk-1234", "203.0.113.7"),
    ],
)
def test_a_key_that_may_be_ours_is_checked(key: str, address: str) -> None:
    answer = Api(address).get("/v1/models", {"Authorization": key})
    error = answer.body["error"]
    assert (answer.status, error["type"], error["code"]) == (401, "authentication_error", "invalid_api_key")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_foreign_key_is_no_way_around_jwt_only(settings: Settings) -> None:
    settings.JWT_ONLY = True
    assert Api().get("/v1/models", {"Authorization": "Bearer sk-1234"}).status == 401


def test_a_foreign_key_behind_a_proxy_is_refused() -> None:
    headers = {"Authorization": "Bearer sk-1234", "X-Forwarded-For": "127.0.0.1"}
    assert Api().get("/v1/models", headers).status == 401


def test_foreign_keys_are_refused_elsewhere() -> None:
    assert Api().get("/api/conversations/", {"Authorization": "Bearer sk-1234"}).outcome == (401, "invalid_token")


def test_errors_of_other_parts_have_the_same_form() -> None:
    api = Api()
    wrong_method, no_path = api.post("/v1/models", {}), api.get("/v1/nothing")
    assert (wrong_method.status, "GET" in wrong_method.headers["Allow"]) == (405, True)
    assert (no_path.status, no_path.body["error"]["type"]) == (404, "invalid_request_error")
    assert set(wrong_method.body["error"]) == set(no_path.body["error"]) == {"message", "type", "param", "code"}
    assert api.get("/nothing").body["error"] == {"code": "not_found", "message": "nothing is served at '/nothing'"}


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("name", ["a%0Ab", "%0A", "a%0D%0Ab", "a%E2%80%A8b", "a%0B", "%0A/x"])
@pytest.mark.parametrize("path", ["/v1/models/", "/models/", "/v1/responses/", "/responses/", "/v1/"])
def test_a_line_break_in_an_id_changes_no_form(method: str, name: str, path: str) -> None:
    answer = Api().call(method, path + name)
    assert answer.status in (404, 405)
    assert set(answer.body["error"]) >= {"message", "type", "param", "code"}


def test_every_answer_has_a_request_id() -> None:
    assert Api().get("/v1/models", {"X-Request-ID": "mine-1"}).headers["X-Request-ID"] == "mine-1"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/gpt-4o"])
def test_without_a_model_file(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ModelUnavailable("no such file: /secret/path")

    monkeypatch.setattr(served_models, "get_tokenizer", fail)
    answer = Api().get(path)
    assert (answer.status, answer.body["error"]["code"]) == (503, "model_unavailable")
    assert "/secret" not in answer.body["error"]["message"]
