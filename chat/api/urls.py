"""Which path leads to which view of the HTTP interface; knows nothing else."""

from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.decorators.http import require_safe
from rest_framework.routers import SimpleRouter

from chat.api import chat_views, health, root
from chat.api.conversation_views import ConversationViewSet
from chat.api.tokens import TokenRefreshView, TokenView

# A closing slash may be left out everywhere: a redirect would lose the body of a POST.
router = SimpleRouter()
router.trailing_slash = "/?"
router.register("conversations", ConversationViewSet, basename="conversation")

urlpatterns: list[URLPattern | URLResolver] = [
    path("", require_safe(root.view), name="root"),
    re_path(r"^health/?$", require_safe(health.view), name="health"),
    re_path(r"^chat/?$", chat_views.chat, name="chat"),
    re_path(r"^chat/stream/?$", chat_views.stream, name="chat-stream"),
    re_path(r"^chat/stream/(?P<generation_id>[^/]+)/?$", chat_views.resume, name="chat-resume"),
    re_path(r"^generate/?$", chat_views.generate, name="generate"),
    re_path(r"^api/generations/(?P<generation_id>[^/]+)/cancel/?$", chat_views.cancel, name="generation-cancel"),
    re_path(r"^api/token/?$", TokenView.as_view(), name="token"),
    re_path(r"^api/token/refresh/?$", TokenRefreshView.as_view(), name="token-refresh"),
    path("api/", include(router.urls)),
]
