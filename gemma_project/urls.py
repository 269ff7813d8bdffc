"""What is where over HTTP: the API and the admin."""

from importlib.util import find_spec

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

urlpatterns: list[URLPattern | URLResolver] = [path("admin/", admin.site.urls)]
if find_spec("chat.api") and find_spec("chat.api.urls"):
    urlpatterns.append(path("", include("chat.api.urls")))

# Errors are JSON but in the admin, which the handlers leave to Django.
handler400 = "chat.api.error_views.bad_request"
handler403 = "chat.api.error_views.permission_denied"
handler404 = "chat.api.error_views.not_found"
handler500 = "chat.api.error_views.server_error"
