"""GET /v1/models and /v1/models/{id}."""

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from chat.access.callers import Caller
from chat.api.json_response import json_response
from chat.api.turn_requests import for_callers
from chat.schemas.openai.models import ModelListAnswer
from chat.services.served_models import chat_model, find_model
from chat.streaming.background import in_thread


@for_callers("GET", any_key=True)
async def list_models(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    served = await in_thread(chat_model)
    return json_response(ModelListAnswer(data=[served.answer]))


@for_callers("GET", any_key=True)
async def model(request: HttpRequest, caller: Caller, name: str) -> HttpResponseBase:
    return json_response(await in_thread(find_model, name))
