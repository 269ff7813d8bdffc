"""Routes of Anthropic's interface."""

from django.urls import URLPattern, re_path

from chat.api.anthropic import views

urlpatterns: list[URLPattern] = [
    re_path(r"^v1/messages/?$", views.messages, name="anthropic-messages"),
    re_path(r"^v1/messages/count_tokens/?$", views.count_tokens, name="anthropic-count-tokens"),
]
