"""The input of a response as items: the messages that its answer follows, and instructions that came as items."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from chat.access.callers import Caller
from chat.error_translation import translated
from chat.errors import NotFound
from chat.models import Conversation, Message, Role
from chat.schemas.answer_types import as_json
from chat.schemas.openai.tool_answers import call_id
from chat.schemas.requests import RESPONSE
from chat.schemas.responses.answers import (
    AnyItem,
    FunctionCallItem,
    FunctionOutputItem,
    InputMessageItem,
    InputText,
    ItemList,
    ItemStatus,
    OutputMessage,
    OutputText,
)
from chat.schemas.responses.identifiers import CALL_PREFIX, OUTPUT_PREFIX, message_item_id, output_item_id
from chat.schemas.responses.rendering import may_call
from chat.services.item_facts import Facts, item_facts
from chat.tool_calling.call_parser import parse_answer
from chat.tool_calling.call_text import RESULT_START, results_text
from inference.models import Generation, Status


@dataclass(frozen=True, kw_only=True)
class ItemPage:
    """The part of a list that is wanted: ``limit`` items behind the item ``after``."""

    limit: int
    after: str
    is_descending: bool


def item_list(generation: Generation, page: ItemPage) -> ItemList:
    """Return a page of a response's input. Raises NotFound for an ``after`` that names none of its items."""
    with translated():
        items = _items(generation)
    # Reversed before ``after`` is looked up: it names the last item of the page before, in the order of the pages.
    if page.is_descending:
        items.reverse()
    if page.after:
        place = next((index for index, item in enumerate(items) if item.id == page.after), None)
        if place is None:
            raise NotFound("there is no such item", field="after")
        items = items[place + 1 :]
    first_items = items[: page.limit]
    return ItemList(
        data=[as_json(item) for item in first_items],
        first_id=first_items[0].id if first_items else "",
        last_id=first_items[-1].id if first_items else "",
        has_more=len(items) > len(first_items),
    )


def items_of_message(*, caller: Caller, message_id: uuid.UUID) -> list[AnyItem]:
    """Return the items that a stored message of the caller was sent as; none for an unknown message."""
    with translated():
        conversation = Conversation.objects.of(caller.key).filter(messages=message_id).first()
        messages = list(conversation.messages.in_order()) if conversation else []
        pairs = zip(messages, item_facts(messages), strict=True)
        return [item for message, fact in pairs if message.pk == message_id for item in _items_of(message, fact)]


def _items(generation: Generation) -> list[AnyItem]:
    answer: Message = generation.message
    rows = answer.conversation.messages.in_order().filter(position__lt=answer.position)
    messages = list(rows)
    facts = item_facts(messages, generation)
    items = [item for message, fact in zip(messages, facts, strict=True) for item in _items_of(message, fact)]
    answers = [generation, *(message.generation for message in messages if message.generation)]
    roles = [role for row in answers for role in row.details.get(RESPONSE, {}).get("system_roles", [])]
    conversation = answer.conversation
    if not roles or not conversation.system_prompt:
        return items
    # The instructions that the first call had as items; one item, since they are one text.
    content = [InputText(text=conversation.system_prompt)]
    return [InputMessageItem(id=message_item_id(conversation.pk), role=roles[0], content=content), *items]


def _items_of(message: Message, fact: Facts) -> Iterator[AnyItem]:
    """Yield the items that a message was made of, or that an answer consists of."""
    if "outputs" in fact:
        start = len(RESULT_START) + 1
        for number, (call, length) in enumerate(fact["outputs"]):
            item_id = output_item_id(OUTPUT_PREFIX, message.pk, number)
            yield FunctionOutputItem(id=item_id, call_id=call, output=message.text[start : start + length])
            start += length + len(results_text([""])) + len("\n")
    elif message.role == Role.ASSISTANT:
        yield from _answer(message, fact)
    else:
        content = [InputText(text=message.text)]
        yield InputMessageItem(id=message_item_id(message.pk), role=fact.get("role", "user"), content=content)


def _answer(message: Message, fact: Facts) -> Iterator[AnyItem]:
    row_id = message.generation_id or message.pk
    calls = fact.get("calls", ())
    generation = message.generation
    if not calls and not (generation and RESPONSE in generation.details and may_call(generation)):
        yield _message(message, row_id, message.text)
        return
    answer = parse_answer(message.text)
    if answer.text or not answer.calls:
        yield _message(message, row_id, answer.text)
    for number, call in enumerate(answer.calls):
        yield FunctionCallItem(
            id=output_item_id(CALL_PREFIX, row_id, number),
            call_id=calls[number] if number < len(calls) else call_id(row_id, number),
            name=call.name,
            arguments=call.arguments,
            status="completed",
        )


def _message(message: Message, row_id: uuid.UUID, text: str) -> OutputMessage:
    status: ItemStatus = "completed" if message.status == Status.COMPLETE else "incomplete"
    return OutputMessage(id=message_item_id(row_id), status=status, content=[OutputText(text=text)])
