"""A stored conversation as clients see it, and what they may set of it."""

from rest_framework import serializers

from chat.enums import Strategy
from chat.models import Conversation
from chat.schemas import fields
from chat.schemas.chat_bodies import Body

MAX_SYSTEM_PROMPT_CHARS = 100_000


class ConversationSerializer(serializers.ModelSerializer[Conversation]):
    class Meta:
        model = Conversation
        fields = ("id", "title", "summary", "system_prompt", "strategy", "created_at", "updated_at")
        read_only_fields = fields


class ConversationBody(Body):
    """What a client may set; everything else about a conversation is not the client's to say."""

    title = fields.Text(required=False, allow_blank=True, max_length=200)
    system_prompt = fields.Text(required=False, allow_blank=True, max_length=MAX_SYSTEM_PROMPT_CHARS)
    strategy = fields.Choice(required=False, choices=[strategy.value for strategy in Strategy])

    def validate_strategy(self, value: str) -> Strategy:
        return Strategy(value)
