"""Routes: the API, the pages and the admin."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path

from chat.api import gpu_views

urlpatterns: list[URLPattern | URLResolver] = [
    # A path of the coordinators' protocol; the admin takes everything else below its own.
    re_path(r"^admin/force-reset/?$", gpu_views.force_reset, name="gpu-force-reset"),
    path("admin/", admin.site.urls),
    path("", include("chat.pages.urls")),
    path("", include("chat.api.urls")),
]

# Errors are JSON but in the admin and, where nothing is served, for a browser.
handler400 = "chat.api.middleware.error_views.bad_request"
handler403 = "chat.api.middleware.error_views.permission_denied"
handler404 = "chat.api.middleware.error_views.not_found"
handler500 = "chat.api.middleware.error_views.server_error"
