"""Operations that clients of the surrounding stack call."""

from chat.api.openapi.operation import KEY, PAGE, STORE_ERRORS, TURN_ERRORS, Operation, Parameter, store_query
from chat.schemas.answer_types import ErrorAnswer
from chat.schemas.stack import analysis, emotions, service, transcripts

_DATE = {"type": "string", "maxLength": 40}
_SPAN = (
    Parameter("start_date", "The first day, or a time, in ISO 8601.", _DATE),
    Parameter("end_date", "The last day, or a time.", _DATE),
)
_PERIOD = Parameter(
    "period",
    "Today, the last 7 or 30 days, or all; without it today.",
    {"type": "string", "enum": ["today", "week", "month", "all", ""]},
)
_MOMENTS = (
    *PAGE,
    Parameter("emotion", "Only this one; `all` and nothing: any.", {"type": "string", "maxLength": 100}),
    Parameter("speaker", "Only this one.", {"type": "string", "maxLength": 200}),
)

STACK_OPERATIONS = (
    Operation(
        "transcripts-query",
        "post",
        "/transcripts/query",
        "Segments by filters and keywords, with the lines around them",
        "stack",
        transcripts.SegmentQueryAnswer,
        transcripts.SegmentQueryBody,
        errors=STORE_ERRORS,
    ),
    store_query(
        "memory-emotions",
        "/memory/emotions/stats",
        "How often each emotion was recognised, and when",
        emotions.MemoryEmotionsAnswer,
        tag="stack",
        parameters=_SPAN,
    ),
    store_query(
        "emotions-stats",
        "/emotions/stats",
        "Emotions of a period",
        emotions.EmotionStatsAnswer,
        tag="stack",
        parameters=(_PERIOD,),
    ),
    store_query(
        "emotions-analytics",
        "/emotions/analytics",
        "Emotions of a period, over time and by speaker",
        emotions.EmotionAnalyticsAnswer,
        tag="stack",
        parameters=(_PERIOD,),
    ),
    store_query(
        "emotions-moments",
        "/emotions/moments",
        "Segments with their emotions, the last said first",
        emotions.MomentsAnswer,
        tag="stack",
        parameters=_MOMENTS,
    ),
    store_query(
        "transcripts-time-range",
        "/debug/transcripts/time-range",
        "The time that the stored recordings cover",
        transcripts.TimeRangeAnswer,
        tag="stack",
    ),
    Operation(
        "chat-rag",
        "post",
        "/chat/rag",
        "One answer as JSON, with memories",
        "stack",
        service.RagChatAnswer,
        service.RagChatBody,
        errors=TURN_ERRORS,
        parameters=(KEY,),
    ),
    Operation(
        "service-stats", "get", "/stats", "The model and its queue", "stack", service.ServiceStatsAnswer, errors=(503,)
    ),
    Operation(
        "model-list", "get", "/models/list", "The served model", "stack", service.ModelChoicesAnswer, errors=(503,)
    ),
    Operation(
        "model-settings",
        "get",
        "/settings",
        "Settings of the model",
        "stack",
        service.ServiceSettingsAnswer,
        errors=(503,),
    ),
    Operation(
        "analyze",
        "post",
        "/analyze",
        "An analysis of stored segments",
        "stack",
        analysis.AnalysisAnswer,
        analysis.AnalyzeBody,
        errors=TURN_ERRORS,
        parameters=(KEY,),
    ),
    # Not served: the error names the way to get it here.
    Operation(
        "model-settings-update",
        "post",
        "/settings/update",
        "Not served",
        "stack",
        ErrorAnswer,
        status=501,
        errors=(503,),
    ),
    Operation("score-chunk", "post", "/score-chunk", "Not served", "stack", ErrorAnswer, status=501, errors=(503,)),
)
