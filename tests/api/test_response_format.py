"""``response_format``, ``json_schema`` and ``grammar``: refusals that name the field, and answers that obey."""

import time
from typing import Any

import pytest
from django.test import Client

from chat.errors import InvalidRequest
from chat.schemas.chat_bodies import chat_request, completion_request
from chat.schemas.openai.chat_bodies import chat_completion_request
from inference.models import Generation

USER = {"role": "user", "content": "hi"}
SCHEMA = "response_format.json_schema.schema"


def named(schema: object) -> dict[str, object]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


def refusal_of(**fields: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        chat_completion_request({"messages": [USER]} | fields)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, SCHEMA),
        ({"response_format": {"type": "regex"}}, "response_format.regex"),
        ({"response_format": {"type": "lark"}}, "response_format.grammar"),
        ({"response_format": {"type": "json_object"}, "grammar": "start:"}, "grammar"),
        ({"json_schema": {"type": "null"}, "grammar": "start:"}, "grammar"),
        ({"json_schema": {"type": "nothing"}}, "json_schema"),
        ({"json_schema": 5}, "json_schema"),
        ({"grammar": "start: missing"}, "grammar"),
        ({"grammar": "root ::= ("}, "grammar"),
        ({"grammar": "root ::= " + "(" * 5000}, "grammar"),
        ({"grammar": "start: <start_of_turn>"}, "grammar"),
        ({"grammar": "start: <[106]>\n" * 2}, "grammar"),
        ({"grammar": 'start: "a"' + " " * 70_000}, "grammar"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, object], path: str) -> None:
    assert refusal_of(**fields).field == path


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "nothing"}, ""),
        ({"type": ["string", 5]}, ""),
        ({"properties": 5}, ""),
        ({"minimum": "a"}, ""),
        ({"enum": []}, ""),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, ""),
        (False, ""),
        ({"$ref": "#"}, ""),
        ({"allOf": [{"$ref": "#"}]}, ".allOf[0]"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, ".$defs.a"),
        ({"$ref": "https://example.org/schema.json"}, ""),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, ".properties.a"),
        ({"properties": {"a": {"items": {"$ref": "#/$defs/none"}}}}, ".properties.a.items"),
        ({"type": "object", "properties": {"a": {"type": "array", "contains": {}}}}, ".properties.a"),
        ({"prefixItems": [{}, {"anyOf": [{"type": "null"}, {"pattern": "("}]}]}, ".prefixItems[1].anyOf[1]"),
        ({"items": {"uniqueItems": True}}, ".items"),
        ({"patternProperties": {"^a/b~c$": {"not": {}}}}, ".patternProperties.^a/b~c$"),
        ({"minimum": "a", "patternProperties": {"^x": {"type": "string"}, "é %41": {}}}, ""),
        ({"patternProperties": {"^ %41é?#$": {"type": "nothing"}}}, ".patternProperties.^ %41é?#$"),
        ({"properties": {"a": {"type": "string", "pattern": "(?=x)y"}}}, ".properties.a"),
        ({"properties": {"a": {"type": "string", "pattern": "(a)\\1"}}}, ".properties.a"),
        (
            {"type": "object", "properties": {"a": {"minimum": 5, "maximum": 3, "type": "integer"}}, "required": ["a"]},
            ".properties.a",
        ),
        ({"const": "\0"}, ""),
        ({"pattern": "\ud800"}, ""),
        ({"maximum": 10**400, "type": "integer"}, ""),
        ({"enum": ["x" * 1_000_000]}, ""),
        (nested(40), ""),
        (nested(400), ""),
    ],
)
def test_a_schema_that_cannot_be_compiled_names_its_part(schema: object, path: str) -> None:
    assert refusal_of(**named(schema)).field == SCHEMA + path


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(1400)}},
        {"type": "object", "properties": {f"p{n}": {"uniqueItems": True, "type": "array"} for n in range(1000)}},
        {"anyOf": [{"type": "object", "properties": {f"p{n}": {"pattern": "(a|b)*c{9}"}}} for n in range(800)]},
        {"allOf": [{"anyOf": [{"required": [f"{n}{m}"]} for m in range(9)]} for n in range(40)]},
        {"$defs": {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)}, "$ref": "#/$defs/a0"},
        {"$defs": {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)}, "$ref": "#/$defs/a0"},
        {"type": "string", "pattern": "^(([a-z]{1,100}){1,100}){1,100}$"},
        {"type": "string", "pattern": "^(a+)+$"},
        {"type": "string", "pattern": ".*a.{400}$"},
        {"type": "string", "minLength": 10**6, "maxLength": 10**9},
        {"type": "array", "minItems": 10**6, "items": {"type": "array", "minItems": 10**6}},
        {"type": "integer", "multipleOf": 10**9 + 7},
        {"type": "number", "multipleOf": 1e-300},
        {"enum": [f"v{n}" for n in range(6000)]},
        {"type": "object", "minProperties": 10**6},
    ],
)
def test_a_hostile_schema_takes_bounded_time(schema: dict[str, Any]) -> None:
    began = time.process_time()
    try:
        chat_completion_request({"messages": [USER]} | named(schema))
    except InvalidRequest as error:
        assert str(error.field).startswith(SCHEMA)
    assert time.process_time() - began < 3.0


@pytest.mark.parametrize(
    "regex", ["(a+)+$", "(x+x+)+y", "a{1000}{1000}", "((a{1,100}){1,100}){1,100}", "(.*a){50}", "^$"]
)
def test_a_hostile_expression_takes_bounded_time(regex: str) -> None:
    began = time.process_time()
    try:
        chat_completion_request({"messages": [USER], "response_format": {"type": "regex", "regex": regex}})
    except InvalidRequest as error:
        assert error.field == "response_format.regex"
    assert time.process_time() - began < 3.0


def test_options_within_a_schema_change_nothing() -> None:
    lenient = {"x-guidance": {"lenient": True, "coerce_one_of": True}}
    assert refusal_of(**named(lenient | {"not": {}})).field == SCHEMA
    _, request = chat_completion_request({"messages": [USER]} | named(lenient | {"type": "null"}))
    assert '"lenient": false' in request.grammar


def test_a_format_that_is_an_annotation_constrains_nothing() -> None:
    properties = {"format": {"type": "string", "format": "password"}, "other": {"const": {"format": "password"}}}
    _, request = chat_completion_request({"messages": [USER]} | named({"type": "object", "properties": properties}))
    assert request.grammar.count("password") == 1


def test_the_same_fields_everywhere() -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    forms: list[dict[str, Any]] = [
        named(schema),
        {"json_schema": schema},
        {"response_format": {"type": "json_schema", "schema": schema}},
        {"response_format": {"type": "json_object", "schema": schema}},
    ]
    grammars = {
        request.grammar
        for fields in forms
        for request in (
            chat_request({"message": "hi"} | fields),
            completion_request({"prompt": "hi"} | fields),
            chat_completion_request({"messages": [USER]} | fields)[1],
        )
    }
    assert len(grammars) == 1
    assert all(grammars)
    assert chat_request({"message": "hi", "response_format": {"type": "text"}}).grammar == ""


def test_a_begun_answer_has_no_format() -> None:
    error = refusal_of(messages=[USER, {"role": "assistant", "content": "{"}], response_format={"type": "json_object"})
    assert (error.field, error.code) == ("messages", "unsupported")


@pytest.mark.django_db
def test_a_refused_schema_stores_nothing(client: Client) -> None:
    bodies: list[tuple[str, dict[str, object]]] = [
        ("/chat", {"message": "hi"}),
        ("/chat/stream", {"message": "hi"}),
        ("/generate", {"prompt": "hi"}),
        ("/v1/chat/completions", {"messages": [USER]}),
        ("/v1/completions", {"prompt": "hi"}),
    ]
    for path, body in bodies:
        response = client.post(path, body | named({"type": "nothing"}), content_type="application/json")
        assert response.status_code == 400, path
        error = response.json()["error"]
        assert SCHEMA in (error.get("param"), error.get("field"))
    assert not Generation.objects.exists()
