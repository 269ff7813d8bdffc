"""Routes that clients of the surrounding stack call, of its RAG service and its chat service."""

from django.urls import URLPattern, re_path

from chat.api.stack import service_views as service
from chat.api.stack import transcript_views as transcripts

urlpatterns: list[URLPattern] = [
    re_path(r"^transcripts/query/?$", transcripts.query_transcripts, name="transcripts-query"),
    re_path(r"^memory/emotions/stats/?$", transcripts.memory_emotions, name="memory-emotions"),
    re_path(r"^emotions/stats/?$", transcripts.emotion_stats, name="emotions-stats"),
    re_path(r"^emotions/analytics/?$", transcripts.emotion_analytics, name="emotions-analytics"),
    re_path(r"^emotions/moments/?$", transcripts.emotion_moments, name="emotions-moments"),
    re_path(r"^debug/transcripts/time-range/?$", transcripts.time_range, name="transcripts-time-range"),
    re_path(r"^chat/rag/?$", service.chat_rag, name="chat-rag"),
    re_path(r"^stats/?$", service.stats, name="service-stats"),
    re_path(r"^models/list/?$", service.list_models, name="model-list"),
    re_path(r"^settings/?$", service.model_settings, name="model-settings"),
    re_path(r"^settings/update/?$", service.update_settings, name="model-settings-update"),
    re_path(r"^analyze/?$", service.analyze, name="analyze"),
    re_path(r"^score-chunk/?$", service.score_chunk, name="score-chunk"),
]
