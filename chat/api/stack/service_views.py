"""Routes of the stack's chat service beside /chat: its chat with memories, its statistics and settings.

Routes that compute from prompts of that service answer 501 and name the way to get it here.
"""

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from chat.access.callers import Caller
from chat.api.body_parsing import LONG_BODY_BYTES, read_object
from chat.api.chat_views import whole_answer
from chat.api.json_response import json_response
from chat.api.keepalive import Body, patient_json
from chat.api.stack.transcript_views import chosen_segments
from chat.api.turn_requests import accepted_chat, ask_chat, for_callers, read_in_thread
from chat.errors import NotServed
from chat.schemas.answer_types import as_json
from chat.schemas.stack import analysis as wire_analysis
from chat.schemas.stack import service as wire
from chat.streaming.admission import in_arrival_order
from chat.streaming.background import in_thread
from inference.models import Generation
from inference.monitoring import worker_report


@for_callers("POST")
async def chat_rag(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """POST /chat/rag: /chat that always searches the memories."""
    accepted = await ask_chat(request, caller, read=wire.rag_chat_request, goes_on_alone=True)
    return await patient_json(whole_answer(accepted, caller, wire.rag_answer))


@for_callers("GET")
async def stats(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """GET /stats"""
    return json_response(wire.service_stats(await in_thread(worker_report.snapshot)))


@for_callers("GET")
async def list_models(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """GET /models/list"""
    report = await in_thread(worker_report.last_report)
    return json_response(wire.model_choices(report, settings.GEMMA_MODEL_FILE, settings.GEMMA_KV_TYPE_K))


@for_callers("GET")
async def model_settings(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """GET /settings"""
    report = await in_thread(worker_report.last_report)
    return json_response(wire.service_settings(report, settings.GEMMA_KV_TYPE_K))


@for_callers("POST")
async def analyze(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """POST /analyze: a prompt about stored segments, which becomes no conversation."""

    def prompt_of(request: HttpRequest) -> tuple[wire_analysis.Analysis, str, int]:
        chosen = wire_analysis.analysis(read_object(request))
        items, _ = chosen_segments(chosen.query, caller)
        return chosen, wire_analysis.prompt_of(chosen, items), len(items)

    chosen, prompt, n_segments = await read_in_thread(request, prompt_of)
    if not n_segments:
        error = "no transcript segments match the filters"
        return json_response(wire_analysis.AnalysisAnswer(success=False, filters_applied=chosen.filters, error=error))
    turn_request = wire_analysis.analysis_request(chosen, prompt)
    # Of the prompt, not of the body: a few filters may choose a megabyte of segments.
    is_long = len(prompt) > LONG_BODY_BYTES
    async with in_arrival_order(is_long=is_long):
        accepted = await accepted_chat(request, caller, turn_request, goes_on_alone=True, is_long=is_long)

    def render(generation: Generation) -> Body:
        return as_json(wire_analysis.analysis_answer(chosen, prompt, n_segments, generation))

    return await patient_json(whole_answer(accepted, caller, render))


@for_callers("POST")
async def score_chunk(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """POST /score-chunk"""
    raise NotServed(
        "this service has no prompts of its own for scores of tables: post the rows with your questions to /chat or "
        "/v1/chat/completions"
    )


@for_callers("POST")
async def update_settings(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """POST /settings/update"""
    raise NotServed(
        "settings of the model are environment variables (GEMMA_CONTEXT_SIZE, GEMMA_KV_TYPE_K, GEMMA_KV_TYPE_V), read "
        "when the service starts"
    )
