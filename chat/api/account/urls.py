"""Paths of what belongs to a user's account."""

from django.urls import URLPattern, re_path

from chat.api.account import key_views

urlpatterns: list[URLPattern] = [
    re_path(r"^api/keys/?$", key_views.KeyListView.as_view(), name="api-key-list"),
    re_path(r"^api/keys/(?P<pk>[^/]+)/?$", key_views.KeyDetailView.as_view(), name="api-key-detail"),
]
