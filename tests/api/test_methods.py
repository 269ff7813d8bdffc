"""Methods and paths that are not served, and how much of a request an error repeats."""

import pytest

from chat.errors import MAX_QUOTED_CHARS, quoted
from tests.api.calling import Api

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("path", ["/", "/health", "/health/"])
@pytest.mark.parametrize("method", ["DELETE", "POST", "PUT", "PATCH"])
def test_a_method_that_a_public_page_does_not_have(path: str, method: str) -> None:
    """Also with the checks of a browser's session on, which would ask for a CSRF token first."""
    answer = Api(enforce_csrf_checks=True).call(method, path)
    assert answer.outcome == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/nothing/" + "x" * 5000, "/" + "é" * 2000, "/" + "%00" * 10, "/" + "'" * 3000])
def test_an_unknown_path_is_not_repeated_at_length(path: str) -> None:
    answer = Api().get(path)
    assert answer.outcome == (404, "not_found")
    assert len(answer.body["error"]["message"]) < 2 * MAX_QUOTED_CHARS


@pytest.mark.parametrize(
    "value", ["x" * 900_000, "\0" * 900_000, "😀" * 1000, ["x" * 1000], {"a": "x" * 1000}, 10**4000]
)
def test_a_quotation_is_short(value: object) -> None:
    assert len(quoted(value)) == MAX_QUOTED_CHARS
    assert quoted(value).endswith("…")


def test_what_is_short_is_quoted_whole() -> None:
    assert (quoted("dance"), quoted(7), quoted(None), quoted("x" * 98)) == ("'dance'", "7", "None", repr("x" * 98))
