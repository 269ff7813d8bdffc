"""GET /api/usage/: the caller's limits, and what is used of them."""

from typing import Any, cast

import msgspec
from rest_framework.request import Request
from rest_framework.response import Response

from chat.access import usage
from chat.access.caller_limits import limits_of
from chat.access.callers import Caller
from chat.api.drf import JsonApi
from chat.error_translation import translated
from chat.models import Conversation
from chat.schemas.accounts.usage_answers import CallerUsageAnswer, LimitsAnswer, UsageDay, UsageNow
from inference.models import DailyUsage, Generation
from inference.queue.usage import minute_of, tokens_of_today

MAX_DAYS = 31


class UsageView(JsonApi):
    """/api/usage/"""

    def get(self, request: Request) -> Response:
        caller = cast(Caller, request.auth)
        days = [
            UsageDay(
                day=row.day,
                answers=row.n_generations,
                prompt_tokens=row.n_prompt_tokens,
                completion_tokens=row.n_completion_tokens,
                total_tokens=row.n_tokens,
            )
            for row in DailyUsage.objects.filter(owner=caller.key)[:MAX_DAYS]
        ]
        limits = LimitsAnswer(**vars(limits_of(caller)))
        answer = CallerUsageAnswer(limits=limits, now=_now(caller), days=days)
        body: dict[str, Any] = msgspec.to_builtins(answer)
        return Response(body)


def _now(caller: Caller) -> UsageNow:
    with translated():
        return UsageNow(
            requests_this_minute=usage.n_requests(caller),
            tokens_this_minute=minute_of(caller.key).n_tokens,
            tokens_today=tokens_of_today(caller.key),
            answers_under_way=Generation.objects.unfinished_of(caller.key).count(),
            conversations=Conversation.objects.of(caller.key).count(),
            memories=usage.n_memories(caller),
        )
