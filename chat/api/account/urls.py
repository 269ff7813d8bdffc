"""Paths of what belongs to a user's account."""

from django.urls import URLPattern, re_path

from chat.api.account import account_views, key_views, token_views, usage_view

urlpatterns: list[URLPattern] = [
    re_path(r"^api/token/?$", token_views.TokenView.as_view(), name="token"),
    re_path(r"^api/token/refresh/?$", token_views.TokenRefreshView.as_view(), name="token-refresh"),
    re_path(r"^api/token/logout/?$", token_views.TokenLogoutView.as_view(), name="token-logout"),
    re_path(r"^api/keys/?$", key_views.KeyListView.as_view(), name="api-key-list"),
    re_path(r"^api/keys/(?P<pk>[^/]+)/?$", key_views.KeyDetailView.as_view(), name="api-key-detail"),
    re_path(r"^api/account/?$", account_views.AccountView.as_view(), name="account"),
    re_path(r"^api/account/export/?$", account_views.AccountExportView.as_view(), name="account-export"),
    re_path(r"^api/usage/?$", usage_view.UsageView.as_view(), name="usage"),
]
