"""/v1/embeddings, /tokenize, /detokenize and /apply-template."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from pytest_django import Settings

from chat.rag.vectors.embedding import embed
from tests.api.calling import Answer, Api

pytestmark = pytest.mark.django_db(transaction=True)

TEXTS = ["The cat sleeps.", "A long report about ships"]


def embedded(**fields: object) -> Answer:
    return Api().post("/v1/embeddings", {"input": TEXTS} | fields)


def vectors_of(answer: Answer) -> "np.ndarray[Any, Any]":
    assert answer.status == 200, answer.body
    assert [item["index"] for item in answer.body["data"]] == list(range(len(answer.body["data"])))
    return np.array([item["embedding"] for item in answer.body["data"]])


def test_vectors_are_those_of_the_memories() -> None:
    answer = embedded()
    expected = embed(TEXTS)
    assert expected is not None
    assert np.allclose(vectors_of(answer), expected, atol=1e-6)
    assert answer.body["model"] == "all-MiniLM-L6-v2"
    assert answer.body["usage"] == {"prompt_tokens": 13, "total_tokens": 13}
    assert np.allclose(vectors_of(embedded(input=TEXTS[0]))[0], expected[0], atol=0.02)


def test_base64_holds_the_same_numbers() -> None:
    texts = [item["embedding"] for item in embedded(encoding_format="base64").body["data"]]
    decoded = np.array([np.frombuffer(base64.b64decode(text), "<f4") for text in texts])
    assert np.allclose(decoded, vectors_of(embedded(encoding_format="float")), atol=1e-6)


@pytest.mark.parametrize("dimensions", [1, 100, 384])
def test_dimensions(dimensions: int) -> None:
    vectors = vectors_of(embedded(dimensions=dimensions))
    assert vectors.shape == (2, dimensions)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_a_large_batch_keeps_its_order() -> None:
    texts = [f"number {number} " + "word " * (number % 7) for number in range(100)]
    vectors = vectors_of(embedded(input=texts))
    assert np.argmax(vectors @ vectors_of(embedded(input=texts[42]))[0]) == 42


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"input": ""}, "input"),
        ({"input": " \n"}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", "  "]}, "input[1]"),
        ({"input": [1, 2]}, "input[0]"),
        ({"input": [[1, 2]]}, "input[0]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": None}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 385}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_bad_texts(fields: dict[str, object], field: str) -> None:
    answer = embedded(**fields)
    assert (answer.status, answer.body["error"]["param"]) == (400, field)


def test_the_chat_model_embeds_nothing(settings: Settings) -> None:
    answer = embedded(model="fake-it")
    assert (answer.status, answer.body["error"]["code"]) == (404, "model_not_found")
    settings.MODEL_ALIASES = ["text-embedding-3-small"]
    assert embedded(model="text-embedding-3-small").status == 200


def test_without_the_embedding_model(settings: Settings) -> None:
    settings.RAG_EMBEDDING_PATH = settings.GEMMA_DATA_DIR / "missing.onnx"
    answer = embedded()
    assert (answer.status, answer.body["error"]["type"]) == (503, "server_error")
    assert "missing.onnx" not in answer.body["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"content": "hi"}, [109, 110]),
        ({"content": "hi", "add_special": True}, [2, 109, 110]),
        ({"content": "<bos>"}, [2]),
        ({"content": "<b", "parse_special": False}, [65, 103]),
        ({"content": ""}, []),
    ],
)
def test_tokenize(fields: dict[str, object], tokens: list[int]) -> None:
    assert Api().post("/tokenize", fields).body == {"tokens": tokens}


def test_pieces_and_the_way_back() -> None:
    pieces = Api().post("/tokenize", {"content": "<bos>hé", "with_pieces": True}).body["tokens"]
    assert pieces[:2] == [{"id": 2, "piece": "<bos>"}, {"id": 109, "piece": "h"}]
    assert [piece["piece"] for piece in pieces[2:]] == [[0xC3], [0xA9]]
    tokens = [piece["id"] for piece in pieces]
    assert Api().post("/detokenize", {"tokens": tokens}).body == {"content": "<bos>hé"}
    assert Api().post("/detokenize", {"tokens": []}).body == {"content": ""}


@pytest.mark.parametrize("tokens", [[261], [-1], ["a"], "ab", [2**40], None])
def test_bad_tokens(tokens: object) -> None:
    answer = Api().post("/detokenize", {"tokens": tokens})
    assert answer.status == 400
    assert answer.body["error"]["param"].startswith("tokens")


def test_apply_template() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi <eos>"},
        {"role": "assistant", "content": "Well"},
    ]
    answer = Api().post("/apply-template", {"messages": messages})
    prompt = "<bos><start_of_turn>user\nBe brief.\n\nhi <eos><end_of_turn>\n<start_of_turn>model\nWell"
    assert answer.body == {"prompt": prompt}


def test_a_template_of_another_model() -> None:
    messages = [{"role": "user", "content": "hi"}]
    assert Api().post("/apply-template", {"messages": messages, "model": "fake-it"}).status == 200
    answer = Api().post("/apply-template", {"messages": messages, "model": "gpt-4o"})
    assert (answer.status, answer.body["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("messages", "param"), [([], "messages"), ([{"role": "user", "content": " "}], "messages"), (None, "messages")]
)
def test_templates_of_nothing(messages: object, param: str) -> None:
    answer = Api().post("/apply-template", {"messages": messages})
    assert (answer.status, answer.body["error"]["param"]) == (400, param)


@pytest.mark.parametrize("with_pieces", [False, True])
@pytest.mark.parametrize("unit", ["x", "é", "🙂"])
def test_a_text_of_very_many_tokens_is_refused(unit: str, with_pieces: bool) -> None:
    # A token for each byte. As UTF-8: escaped, the text would be longer than a body may be.
    content = unit * (300_000 // len(unit.encode()))
    body = json.dumps({"content": content, "with_pieces": with_pieces}, ensure_ascii=False)
    answer = Api().post("/tokenize", body.encode())
    error = answer.body["error"]
    assert (answer.status, error["code"], error["param"]) == (413, "body_too_large", "content")


def test_many_tokens_come_with_their_pieces() -> None:
    answer = Api().post("/tokenize", {"content": "é1" * 20_000, "with_pieces": True})
    assert answer.status == 200
    assert len(answer.body["tokens"]) >= 40_000
    spelled = Api().post("/detokenize", {"tokens": [token["id"] for token in answer.body["tokens"]]})
    assert spelled.body == {"content": "é1" * 20_000}
