"""Rules between the fields of a request, each named by the field it is about."""

import uuid

import pytest
from pytest_django import Settings

from chat.access.callers import Caller
from chat.enums import ChatRole
from chat.errors import InvalidRequest
from chat.models import Role
from chat.rag.query import SourceFilters
from chat.schemas.chat_bodies import chat_request
from chat.schemas.openai.chat_bodies import chat_completion_request
from chat.schemas.requests import ChatMessage, ChatRequest, CompletionRequest, RunOptions
from chat.services.validation import ValidatedRequest, check_options, validate_request
from tests.chat.conversing import ANN
from tests.chat.vocabularies import fake_tokenizer

KNOWN = uuid.uuid4()


def validate(request: ChatRequest) -> ValidatedRequest:
    return validate_request(request, caller=ANN, tokenizer=fake_tokenizer())


def user_messages(*messages: str) -> tuple[ChatMessage, ...]:
    """``said("s:be kind", "u:hello")``"""
    roles = {"s": ChatRole.SYSTEM, "u": ChatRole.USER, "a": ChatRole.ASSISTANT}
    return tuple(ChatMessage(roles[message[0]], message[2:]) for message in messages)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ChatRequest(), "messages"),
        (ChatRequest(messages=user_messages("s:be kind")), "messages"),
        (ChatRequest(messages=user_messages("u:hello", "s:be kind", "u:hello")), "messages"),
        (ChatRequest(messages=user_messages("s:be kind", "s:be kind", "u:hello")), "messages"),
        (ChatRequest(messages=user_messages("u:hello", "a:hi")), "messages"),
        (ChatRequest(messages=user_messages("u:  \n")), "messages"),
        (ChatRequest(message="hello"), "message"),
        (ChatRequest(message="hello", messages=user_messages("u:hello")), "message"),
        (ChatRequest(message="hello", messages=user_messages("u:hello"), conversation_id=KNOWN), "message"),
        (ChatRequest(conversation_id=KNOWN), "messages"),
        (ChatRequest(messages=user_messages("u:one", "a:two", "u:three"), conversation_id=KNOWN), "messages"),
        (ChatRequest(messages=user_messages("s:be kind", "u:one"), conversation_id=KNOWN), "messages"),
        (ChatRequest(messages=user_messages("a:one"), conversation_id=KNOWN), "messages"),
        (ChatRequest(message=" ", conversation_id=KNOWN), "message"),
    ],
)
def test_contradictions_are_refused(request_: ChatRequest, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        validate(request_)
    assert (caught.value.status, caught.value.code, caught.value.field) == (400, "invalid_request", field)


def test_a_sent_history() -> None:
    validated = validate(ChatRequest(messages=user_messages("s:be kind", "u:one", "a:two", "u: three ")))
    assert (validated.system_prompt, validated.question) == ("be kind", " three ")
    assert [(message.role, message.text) for message in validated.history] == [
        (Role.USER, "one"),
        (Role.ASSISTANT, "two"),
    ]


@pytest.mark.parametrize("fields", [{"message": "more"}, {"messages": user_messages("u:more")}])
def test_one_new_message_of_a_known_conversation(fields: dict[str, object]) -> None:
    validated = validate(ChatRequest(conversation_id=KNOWN, **fields))  # type: ignore[arg-type]
    assert (validated.question, validated.history, validated.system_prompt) == ("more", (), "")


@pytest.mark.parametrize("blank", [" ", "\n", "\t \r\n", "\u00a0\u2003"])
def test_a_system_message_of_white_space_counts_as_none(blank: str) -> None:
    assert validate(ChatRequest(messages=user_messages(f"s:{blank}", "u:one"))).system_prompt == ""


def test_what_only_the_model_can_tell() -> None:
    tokenizer = fake_tokenizer(context_size=500)
    check_options(RunOptions(max_tokens=500, logit_bias={0: None, 260: 1.5}), tokenizer)
    with pytest.raises(InvalidRequest) as too_long:
        check_options(RunOptions(max_tokens=501), tokenizer)
    assert too_long.value.field == "max_tokens"
    with pytest.raises(InvalidRequest) as unknown:
        check_options(RunOptions(max_tokens=9, logit_bias={261: 1.0}), tokenizer)
    assert unknown.value.field == "logit_bias"


def test_digests_tell_requests_apart_and_nothing_else() -> None:
    base = ChatRequest(messages=user_messages("u:hello"), logit_bias={1: 2.0})
    assert base.digest == ChatRequest(messages=user_messages("u:hello"), logit_bias={1: 2.0}).digest
    others = [
        ChatRequest(messages=user_messages("u:hello!"), logit_bias={1: 2.0}),
        ChatRequest(messages=user_messages("u:hello")),
        ChatRequest(messages=user_messages("u:hello"), logit_bias={1: 2.0}, conversation_id=KNOWN),
        ChatRequest(messages=user_messages("u:hello"), logit_bias={1: 2.0}, filters=SourceFilters(speakers=("Ann",))),
        CompletionRequest(prompt="hello"),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == len(others) + 1


class TestStoreOfServices:
    """A program that calls 80 times leaves no 80 conversations, unless it is one of people's chats, or wants them."""

    HELLO: dict[str, object] = {"messages": [{"role": "user", "content": "hello"}]}

    @pytest.mark.parametrize(
        ("caller", "changes", "is_stored"),
        [
            ("service:ml-service", {}, False),
            ("service:ml-service", {"store": True}, True),
            ("service:ml-service", {"store": None}, False),
            ("service:ml-service", {"conversation_id": str(KNOWN)}, True),
            ("service:ml-service", {"message": "hello", "messages": None}, True),  # it begins a conversation
            ("service:gateway", {}, True),
            ("service:gateway", {"store": False}, False),
            ("service:gateway-2", {}, False),
            ("user:1", {}, True),
            ("local", {}, True),
        ],
    )
    def test_the_default(self, caller: str, changes: dict[str, object], is_stored: bool) -> None:
        request = chat_request({**self.HELLO, **changes})
        validated = validate_request(request, caller=Caller(caller), tokenizer=fake_tokenizer())
        assert validated.request.store is is_stored

    def test_of_each_service(self, settings: Settings) -> None:
        settings.STORING_SERVICES = frozenset({"ml-service"})
        for name, is_stored in (("ml-service", True), ("gateway", False)):
            request = chat_request(self.HELLO)
            validated = validate_request(request, caller=Caller.of_service(name), tokenizer=fake_tokenizer())
            assert validated.request.store is is_stored

    def test_over_openais_form(self) -> None:
        forms: tuple[tuple[dict[str, object], bool], ...] = (({}, False), ({"store": True}, True))
        for changes, is_stored in forms:
            _, request = chat_completion_request({"model": "m", **self.HELLO, **changes})
            caller = Caller.of_service("ml-service")
            validated = validate_request(request, caller=caller, tokenizer=fake_tokenizer())
            assert validated.request.store is is_stored
