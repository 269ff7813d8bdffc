"""Paths of the HTTP interface and their views."""

from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from rest_framework.routers import SimpleRouter

from chat.api import chat_views, health_view, index_view, metrics_view
from chat.api import gpu_views as gpu
from chat.api import memory_views as memory
from chat.api import model_placement_views as card
from chat.api.conversation_views import ConversationViewSet
from chat.api.openapi import views as openapi_views

# A closing slash may be left out everywhere: a redirect would lose the body of a POST.
router = SimpleRouter()
router.trailing_slash = "/?"
router.register("conversations", ConversationViewSet, basename="conversation")

# A method that is not served is refused as such, whatever credentials a session needs for others: hence the exemptions.
urlpatterns: list[URLPattern | URLResolver] = [
    path("", csrf_exempt(require_safe(index_view.view)), name="root"),
    re_path(r"^health/?$", csrf_exempt(require_safe(health_view.view)), name="health"),
    re_path(r"^health/live/?$", csrf_exempt(require_safe(health_view.live)), name="health-live"),
    re_path(r"^health/ready/?$", csrf_exempt(require_safe(health_view.ready)), name="health-ready"),
    re_path(r"^metrics/?$", metrics_view.metrics, name="metrics"),
    re_path(r"^chat/?$", chat_views.chat, name="chat"),
    re_path(r"^chat/stream/?$", chat_views.stream, name="chat-stream"),
    re_path(r"^chat/stream/(?P<generation_id>[^/]+)/?$", chat_views.resume, name="chat-resume"),
    re_path(r"^generate/?$", chat_views.generate, name="generate"),
    re_path(r"^api/generations/(?P<generation_id>[^/]+)/cancel/?$", chat_views.cancel, name="generation-cancel"),
    path("", include("chat.api.account.urls")),
    path("", include("chat.api.stack.urls")),
    path("", include("chat.api.openai.urls")),
    path("", include("chat.api.responses.urls")),
    path("", include("chat.api.anthropic.urls")),
    re_path(r"^search/semantic/?$", memory.search_semantic, name="memory-search-semantic"),
    re_path(r"^search/?$", memory.search_old, name="memory-search-old"),
    re_path(r"^index/transcript/?$", memory.index_transcript, name="memory-index"),
    re_path(r"^memory/add/?$", memory.add_note, name="memory-add"),
    re_path(r"^memory/list/?$", memory.list_notes, name="memory-list"),
    re_path(r"^memory/search/?$", memory.search_notes, name="memory-search"),
    re_path(r"^memory/stats/?$", memory.stats, name="memory-stats"),
    re_path(r"^memory/(?P<memory_id>[^/]+)/?$", memory.delete_note, name="memory-delete"),
    re_path(r"^transcripts/recent/?$", memory.recent_transcripts, name="transcripts-recent"),
    re_path(r"^transcripts/speakers/?$", memory.speakers, name="transcripts-speakers"),
    re_path(r"^transcripts/count/?$", memory.count_transcripts, name="transcripts-count"),
    # Job ids are chosen by clients, and may contain slashes and line breaks.
    re_path(r"^transcript/(?P<job_id>(?s:.+?))/?$", memory.transcript, name="transcript"),
    re_path(r"^warmup/?$", card.warmup, name="card-warmup"),
    re_path(r"^move-to-cpu/?$", card.move_to_cpu, name="card-move-to-cpu"),
    re_path(r"^release-session/?$", card.release_session, name="card-release-session"),
    re_path(r"^gpu/acquire/?$", gpu.acquire, name="gpu-acquire"),
    re_path(r"^gpu/renew/?$", gpu.renew, name="gpu-renew"),
    re_path(r"^gpu/release/?$", gpu.release, name="gpu-release"),
    re_path(r"^gpu/state/?$", gpu.state, name="gpu-state"),
    re_path(r"^gemma/request/?$", gpu.old_request, name="gpu-old-request"),
    re_path(r"^gemma/release/(?P<task_id>[^/]+)/?$", gpu.old_release, name="gpu-old-release"),
    re_path(r"^status/?$", gpu.old_status, name="gpu-old-status"),
    re_path(r"^api/schema/?$", csrf_exempt(require_safe(openapi_views.schema)), name="schema"),
    re_path(r"^api/docs/?$", csrf_exempt(require_safe(openapi_views.docs)), name="docs"),
    path("api/", include(router.urls)),
]
