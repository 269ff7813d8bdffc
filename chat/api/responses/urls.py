"""Routes of OpenAI's Responses; ``v1/`` may be left out."""

from django.urls import URLPattern, re_path

from chat.api.responses import views

urlpatterns: list[URLPattern] = [
    re_path(r"^(?:v1/)?responses/?$", views.create, name="openai-responses"),
    re_path(r"^(?:v1/)?responses/(?P<name>[^/]+)/?$", views.response, name="openai-response"),
    re_path(r"^(?:v1/)?responses/(?P<name>[^/]+)/cancel/?$", views.cancel, name="openai-response-cancel"),
    re_path(r"^(?:v1/)?responses/(?P<name>[^/]+)/input_items/?$", views.items, name="openai-response-items"),
]
